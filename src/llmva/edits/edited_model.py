"""A model with a log of edits applied in place, and back again."""

from collections.abc import Collection, Mapping
from typing import Self

import numpy
import torch

from llmva.core.errors import InputError
from llmva.edits.log import EditLog, SublayerEdit
from llmva.models.offloading import stored_parameters

EDITABLE_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class EditedModel:
    """The linear modules of a model with a log of edits applied, or not, in place.

    The original weights and biases are kept in the CPU's memory, so any log can follow any other, and `revert`
    brings the original back bit for bit. As a context manager it reverts on leaving. Storage stays where it is:
    what holds a pointer to a weight sees the edit. `log` holds the edits applied now.

    Parameters
    ----------
    modules : mapping of str to torch.nn.Linear
        By sublayer, on any device, in any floating type of 16 bits or more.
    rounding : str
        `none`: edits are summed in float32 and cast once. Or a type's name, as `bfloat16`: the weight is
        rounded to it after every edit, as where edits are made in place.

    Raises
    ------
    InputError
        When a module is not an ordinary linear layer, is quantised, sharded, computed or not in memory, or
        shares its parameters with another sublayer.
    """

    def __init__(self, modules: Mapping[str, torch.nn.Linear], rounding: str = "none"):
        for sublayer, module in modules.items():
            _require_editable(sublayer, module)
        _require_unshared(modules)
        self.log = EditLog()
        self._rounding = None if rounding == "none" else getattr(torch, rounding)
        self._modules = dict(modules)
        self._originals = {
            sublayer: {name: value.detach().to("cpu", copy=True) for name, value in _parameters(module).items()}
            for sublayer, module in modules.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        self.revert()

    def weight(self, sublayer: str) -> torch.Tensor:
        """Return the current weight W0 + sum_t a_t u_t^T, (d_out, d_in), at least in float32, before any cast."""
        return self._edited(sublayer, "weight", self.log.edits_of(sublayer))

    def bias(self, sublayer: str) -> torch.Tensor | None:
        """Return the current bias b0 + sum_t a_t bias_step_t, (d_out,), at least in float32; None without one."""
        has_bias = "bias" in self._originals[sublayer]
        return self._edited(sublayer, "bias", self.log.edits_of(sublayer)) if has_bias else None

    def apply(self, log: EditLog) -> None:
        """Set every module to its original plus all its edits in `log`, cast once.

        Raises
        ------
        InputError
            When the log names a sublayer that is not here, or was made for other shapes; nothing is changed then.
        """
        for sublayer in log.sublayers:
            self._require_fit(sublayer, log.edits_of(sublayer))
        for sublayer in self._modules:
            if log.edits_of(sublayer) != self.log.edits_of(sublayer):
                self._set(sublayer, log.edits_of(sublayer))
        self.log = log

    def revert(self) -> None:
        """Restore the original weights and biases, bit for bit."""
        self.apply(EditLog())

    def _set(self, sublayer: str, edits: tuple[SublayerEdit, ...]) -> None:
        with torch.no_grad():
            for name, parameter in _parameters(self._modules[sublayer]).items():
                original = self._originals[sublayer][name]
                parameter.copy_(self._edited(sublayer, name, edits) if edits else original)

    def _edited(self, sublayer: str, name: str, edits: tuple[SublayerEdit, ...]) -> torch.Tensor:
        # Computed where the module computes.
        device = _parameters(self._modules[sublayer])[name].device
        return edited_parameter(name, self._originals[sublayer][name].to(device), edits, self._rounding)

    def _require_fit(self, sublayer: str, edits: tuple[SublayerEdit, ...]) -> None:
        if sublayer not in self._modules:
            raise InputError(f"edits: the model has no sublayer {sublayer}; use the model they were made for")
        original = self._originals[sublayer]
        require_shape(sublayer, original["weight"], edits)
        if "bias" not in original and any(edit.bias_step for edit in edits):
            raise InputError(f"edits: made for another {sublayer}, with a bias; use the model they were made for")


def require_found(source: str, missing: Collection[str]) -> None:
    """Raise an `InputError` when weights or biases that are edited are not in a model's files."""
    if missing:
        raise InputError(f"{source}: has no {', '.join(sorted(missing))}; name the model that the edits were made for")


def require_shape(sublayer: str, weight: torch.Tensor, edits: tuple[SublayerEdit, ...]) -> None:
    """Raise an `InputError` when edits were made for a weight of another shape."""
    for edit in edits:
        shape = (len(edit.output_vector), len(edit.input_vector))
        if shape != tuple(weight.shape):
            raise InputError(
                f"edits: made for another {sublayer}, of shape {shape}, where the model's is "
                f"{tuple(weight.shape)}; use the model they were made for"
            )


def edited_parameter(
    name: str, original: torch.Tensor, edits: tuple[SublayerEdit, ...], rounding: torch.dtype | None = None
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


def _add_to_weight(weight: torch.Tensor, edits: tuple[SublayerEdit, ...]) -> None:
    outputs = numpy.stack([edit.output_vector for edit in edits], axis=1)
    inputs = numpy.stack([edit.input_vector for edit in edits])
    weight.addmm_(torch.from_numpy(outputs).to(weight), torch.from_numpy(inputs).to(weight))


def _add_to_bias(bias: torch.Tensor, edits: tuple[SublayerEdit, ...]) -> None:
    for edit in edits:
        bias.add_(torch.from_numpy(edit.output_vector).to(bias), alpha=edit.bias_step)


def _parameters(module: torch.nn.Linear) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in stored_parameters(module).items() if name in ("weight", "bias")}


def _require_editable(sublayer: str, module: torch.nn.Module) -> None:
    if not isinstance(module, torch.nn.Linear):
        raise InputError(f"{sublayer}: is a {type(module).__name__}, not a torch.nn.Linear; use a dense model")
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


def _require_unshared(modules: Mapping[str, torch.nn.Linear]) -> None:
    owners = {}
    for sublayer, module in modules.items():
        for name, parameter in _parameters(module).items():
            owner = owners.setdefault((parameter.device, parameter.data_ptr()), sublayer)
            if owner != sublayer:
                raise InputError(f"{sublayer}: shares its {name} with {owner}; an edit of one would change both")
