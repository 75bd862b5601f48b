"""The linear modules that edits go into: in the weight where it can hold them, beside it where it is packed."""

from typing import Protocol

import numpy
import torch

from llmva.core.errors import InputError
from llmva.edits.log import SublayerEdit
from llmva.models.offloading import stored_parameters
from llmva.models.packed import is_packed, unpack

EDITABLE_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
Edits = tuple[SublayerEdit, ...]


class Writer(Protocol):
    """A module that edits are put into and taken out of; its `shape` is (d_out, d_in)."""

    shape: tuple[int, int]
    has_bias: bool

    def edited(self, name: str, edits: Edits) -> torch.Tensor:
        """Return `weight` or `bias` after edits, at least in float32, before any cast."""

    def set(self, edits: Edits) -> None:
        """Let the module compute with these edits and no others."""


def writer_of(sublayer: str, module: torch.nn.Module, rounding: torch.dtype | None) -> Writer:
    """Return how a sublayer's module takes edits.

    Raises
    ------
    InputError
        When it is not an ordinary linear layer, is quantised by another package than bitsandbytes, sharded, computed
        or not in memory.
    """
    if not isinstance(module, torch.nn.Linear):
        raise InputError(f"{sublayer}: is a {type(module).__name__}, not a torch.nn.Linear; use a dense model")
    if is_packed(module):
        if rounding is not None:
            raise InputError(f"{sublayer}: is packed, and edits beside it are not rounded; load it in bfloat16")
        return Beside(module)
    _require_editable(sublayer, module)
    return InPlace(module, rounding)


class InPlace:
    """Edits in a module's weight and bias; the originals are kept in the CPU's memory, and come back bit for bit."""

    def __init__(self, module: torch.nn.Linear, rounding: torch.dtype | None) -> None:
        self._module, self._rounding = module, rounding
        parameters = own_parameters(module)
        self._originals = {name: value.detach().to("cpu", copy=True) for name, value in parameters.items()}
        self.shape, self.has_bias = tuple(parameters["weight"].shape), "bias" in parameters

    def edited(self, name: str, edits: Edits) -> torch.Tensor:
        """Return `weight` or `bias` after edits; see `Writer`."""
        # Computed where the module computes.
        device = own_parameters(self._module)[name].device
        return edited_parameter(name, self._originals[name].to(device), edits, self._rounding)

    def set(self, edits: Edits) -> None:
        """Write the edited values, cast once, or the originals; see `Writer`."""
        with torch.no_grad():
            for name, parameter in own_parameters(self._module).items():
                parameter.copy_(self.edited(name, edits) if edits else self._originals[name])


class Beside:
    """Edits added to what a module computes: y + a (u.x), which is exact for any weight that is left as it is."""

    def __init__(self, module: torch.nn.Linear) -> None:
        self._module, self._handle = module, None
        # Of an alignment that this one goes on from.
        added = [hook for hook in module._forward_hooks.values() if isinstance(hook, _Added)]
        self._earlier = tuple(edit for hook in added for edit in hook.edits)
        self.shape, self.has_bias = (module.out_features, module.in_features), module.bias is not None

    def edited(self, name: str, edits: Edits) -> torch.Tensor:
        """Return `weight` or `bias` as it would be with the edits in it; see `Writer`."""
        original = unpack(self._module) if name == "weight" else self._module.bias.detach()
        return edited_parameter(name, original, (*self._earlier, *edits))

    def set(self, edits: Edits) -> None:
        """Add the edits to every output from now on; see `Writer`."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None
        if edits:
            add = _Added(edits, self.has_bias)
            # Before anything that records or changes what the sublayer writes.
            self._handle = self._module.register_forward_hook(add, prepend=True)


class _Added:
    """A forward hook that adds the edits' share of the output."""

    def __init__(self, edits: Edits, has_bias: bool) -> None:
        self.edits = edits
        reads, writes = (
            numpy.stack([getattr(edit, part) for edit in edits]) for part in ("input_vector", "output_vector")
        )
        steps = numpy.array([edit.bias_step if has_bias else 0.0 for edit in edits])
        factors = (reads.T, writes, steps @ writes)
        self._factors = tuple(torch.from_numpy(numpy.ascontiguousarray(factor)).float() for factor in factors)

    def __call__(self, module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        # They stay where the module computes, after the first pass.
        self._factors = reads, writes, bias = tuple(factor.to(output.device) for factor in self._factors)
        added = inputs[0].to(output.device, torch.float32) @ reads @ writes + bias
        return output + added.to(output.dtype)


def edited_parameter(
    name: str, original: torch.Tensor, edits: Edits, rounding: torch.dtype | None = None
) -> torch.Tensor:
    """Return a module's `weight` or `bias` after its edits, at least in float32, before the last cast."""
    add = {"weight": _add_to_weight, "bias": _add_to_bias}[name]
    parameter = original.to(torch.promote_types(original.dtype, torch.float32), copy=True)
    # Rounding follows every edit on its own; without it all edits are one product.
    for part in [edits] if rounding is None else [(edit,) for edit in edits]:
        if part:
            add(parameter, part)
        if rounding is not None:
            parameter.copy_(parameter.to(rounding))
    return parameter


def own_parameters(module: torch.nn.Linear) -> dict[str, torch.Tensor]:
    """Return the stored weight and bias of a module, by name."""
    return {name: tensor for name, tensor in stored_parameters(module).items() if name in ("weight", "bias")}


def _add_to_weight(weight: torch.Tensor, edits: Edits) -> None:
    outputs = numpy.stack([edit.output_vector for edit in edits], axis=1)
    inputs = numpy.stack([edit.input_vector for edit in edits])
    weight.addmm_(torch.from_numpy(outputs).to(weight), torch.from_numpy(inputs).to(weight))


def _add_to_bias(bias: torch.Tensor, edits: Edits) -> None:
    for edit in edits:
        bias.add_(torch.from_numpy(edit.output_vector).to(bias), alpha=edit.bias_step)


def _require_editable(sublayer: str, module: torch.nn.Linear) -> None:
    for name in ("weight", "bias"):
        parameter = module._parameters.get(name)
        if parameter is None and getattr(module, name) is None:
            continue
        # A subclass of Parameter stands for packed or distributed values, a computed one forgets what is written.
        if type(parameter) is not torch.nn.Parameter or parameter.dtype not in EDITABLE_TYPES:
            raise InputError(
                f"{sublayer}: its {name} is quantised, sharded or computed; load the model in bfloat16 or float32"
            )
        if stored_parameters(module)[name].is_meta:
            raise InputError(
                f"{sublayer}: its {name} is not in memory; give the model more, so that nothing is offloaded to disk"
            )
