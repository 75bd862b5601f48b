"""A model with a log of edits applied, and back again."""

from collections.abc import Collection, Mapping
from typing import Self

import torch

from llmva.core.errors import InputError
from llmva.edits.log import EditLog, SublayerEdit
from llmva.edits.writers import InPlace, own_parameters, writer_of


class EditedModel:
    """The linear modules of a model with a log of edits applied, or not, in place.

    The original weights and biases are kept in the CPU's memory, so any log can follow any other, and `revert`
    brings the original back bit for bit. As a context manager it reverts on leaving. Storage stays where it is:
    what holds a pointer to a weight sees the edit. `log` holds the edits applied now. Weights that bitsandbytes has
    packed stay as they are: edits are added to what their modules compute.

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
        When a module is not an ordinary linear layer, is quantised otherwise, sharded, computed or not in memory, or
        shares its parameters with another sublayer.
    """

    def __init__(self, modules: Mapping[str, torch.nn.Linear], rounding: str = "none"):
        kept = None if rounding == "none" else getattr(torch, rounding)
        self.log = EditLog()
        self._writers = {sublayer: writer_of(sublayer, module, kept) for sublayer, module in modules.items()}
        _require_unshared(
            {name: module for name, module in modules.items() if isinstance(self._writers[name], InPlace)}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception) -> None:
        self.revert()

    def weight(self, sublayer: str) -> torch.Tensor:
        """Return the current weight W0 + sum_t a_t u_t^T, (d_out, d_in), at least in float32, before any cast."""
        return self._writers[sublayer].edited("weight", self.log.edits_of(sublayer))

    def bias(self, sublayer: str) -> torch.Tensor | None:
        """Return the current bias b0 + sum_t a_t bias_step_t, (d_out,), at least in float32; None without one."""
        writer = self._writers[sublayer]
        return writer.edited("bias", self.log.edits_of(sublayer)) if writer.has_bias else None

    def apply(self, log: EditLog) -> None:
        """Set every module to its original plus all its edits in `log`, cast once.

        Raises
        ------
        InputError
            When the log names a sublayer that is not here, or was made for other shapes; nothing is changed then.
            Whatever else goes wrong midway, or stops it, leaves the original.
        """
        for sublayer in log.sublayers:
            self._require_fit(sublayer, log.edits_of(sublayer))
        try:
            for sublayer, writer in self._writers.items():
                if log.edits_of(sublayer) != self.log.edits_of(sublayer):
                    writer.set(log.edits_of(sublayer))
        except BaseException:
            # Memory that ran out, or Ctrl-C: nobody knows which sublayers have which edits.
            for writer in self._writers.values():
                writer.set(())
            self.log = EditLog()
            raise
        self.log = log

    def revert(self) -> None:
        """Restore the original weights and biases, bit for bit."""
        self.apply(EditLog())

    def _require_fit(self, sublayer: str, edits: tuple[SublayerEdit, ...]) -> None:
        if sublayer not in self._writers:
            raise InputError(f"edits: the model has no sublayer {sublayer}; use the model they were made for")
        writer = self._writers[sublayer]
        require_shape(sublayer, writer.shape, edits)
        if not writer.has_bias and any(edit.bias_step for edit in edits):
            raise InputError(f"edits: made for another {sublayer}, with a bias; use the model they were made for")


def require_found(source: str, missing: Collection[str]) -> None:
    """Raise an `InputError` when weights or biases that are edited are not in a model's files."""
    if missing:
        raise InputError(f"{source}: has no {', '.join(sorted(missing))}; name the model that the edits were made for")


def require_shape(sublayer: str, expected: tuple[int, ...], edits: tuple[SublayerEdit, ...]) -> None:
    """Raise an `InputError` when edits were made for a weight of another shape."""
    for edit in edits:
        shape = (len(edit.output_vector), len(edit.input_vector))
        if shape != tuple(expected):
            raise InputError(
                f"edits: made for another {sublayer}, of shape {shape}, where the model's is "
                f"{tuple(expected)}; use the model they were made for"
            )


def _require_unshared(modules: Mapping[str, torch.nn.Linear]) -> None:
    owners = {}
    for sublayer, module in modules.items():
        for name, parameter in own_parameters(module).items():
            owner = owners.setdefault((parameter.device, parameter.data_ptr()), sublayer)
            if owner != sublayer:
                raise InputError(f"{sublayer}: shares its {name} with {owner}; an edit of one would change both")
