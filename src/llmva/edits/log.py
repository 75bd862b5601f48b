"""The log of edits: which rank-1 factors were added to which sublayer in which iteration, in one safetensors file.

The file can be replayed on a model without this package. `modules` maps names as "mlp.17" to the linear modules
(`o_proj` of attention, `down_proj` of MLP). All edits of a module are summed in float32 and cast once::

    tensors = safetensors.torch.load_file(path)
    for name, module in modules.items():
        keys = [key for key in tensors if key.endswith(f"/{name}/output_vector")]
        weight, bias = module.weight.data.float(), None if module.bias is None else module.bias.data.float()
        for key in keys:
            edit, output = key.removesuffix("output_vector"), tensors[key].to(weight)
            weight += torch.outer(output, tensors[edit + "input_vector"].to(weight))
            if bias is not None:
                bias += output * tensors[edit + "bias_step"].item()
        module.weight.data.copy_(weight)
        if bias is not None:
            module.bias.data.copy_(bias)
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import chain
from numbers import Integral
from pathlib import Path
from typing import Self

import numpy
import safetensors
import safetensors.numpy

from llmva.core.errors import InputError
from llmva.core.paths import write_atomically

# Far beyond any loop: a file that says more is damaged.
MAX_ITERATIONS = 10_000
LOG_FORMAT = {"format": "llmva edit log", "format_version": "1"}


@dataclass(frozen=True, eq=False)
class SublayerEdit:
    """One rank-1 edit of one linear module.

    Attributes
    ----------
    sublayer : str
        Its name, as "mlp.17".
    output_vector : (d_out,) float32 array
        a = v_a.
    input_vector : (d_in,) float32 array
        u = W^T (s v_b - v_a), with W the weight just before this edit; or, of a ridge edit, what stands for it.
    bias_step : float
        (s v_b - v_a).b; the bias moves by this along the output vector. 0 without a bias.
    answer_vector, benign_vector : (d_out,) float32 array
        v_a and v_b.
    scale : float
        s.
    """

    sublayer: str
    output_vector: numpy.ndarray
    input_vector: numpy.ndarray
    bias_step: float
    answer_vector: numpy.ndarray
    benign_vector: numpy.ndarray
    scale: float


EDIT_PARTS = tuple(field.name for field in fields(SublayerEdit) if field.name != "sublayer")
EDIT_NUMBERS = ("bias_step", "scale")


@dataclass(frozen=True, eq=False)
class EditLog:
    """The edits of a run, by iteration. A prefix of it is the model of an earlier iteration.

    Attributes
    ----------
    iterations : tuple of tuples of SublayerEdit
        In the order they were made; an iteration may be empty, and edits a sublayer at most once.
    """

    iterations: tuple[tuple[SublayerEdit, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.iterations)

    @property
    def sublayers(self) -> tuple[str, ...]:
        """The sublayers that are edited at all."""
        return tuple(self._by_sublayer)

    def edits_of(self, sublayer: str) -> tuple[SublayerEdit, ...]:
        """Return one sublayer's edits, first to last."""
        return self._by_sublayer.get(sublayer, ())

    def appended(self, edits: Iterable[SublayerEdit]) -> Self:
        """Return the log with one more iteration."""
        edits = tuple(edits)
        if len({edit.sublayer for edit in edits}) < len(edits):
            raise ValueError("one iteration edits a sublayer twice")
        return EditLog((*self.iterations, edits))

    def at_iteration(self, iteration: int) -> Self:
        """Return the log of the first `iteration` iterations; 0 is the original model."""
        # True would be 1, which nobody means.
        is_number = isinstance(iteration, Integral) and not isinstance(iteration, bool)
        if not is_number or not 0 <= iteration <= len(self):
            raise InputError(f"iteration: {iteration!r:.40} is not in this log; choose 0 to {len(self)}")
        return EditLog(self.iterations[:iteration])

    def save(self, path: str | Path, metadata: dict[str, object]) -> None:
        """Write the log as safetensors: keys as "iteration.000/mlp.17/output_vector", all or nothing.

        Parameters
        ----------
        path : path
            The file. The same log and metadata give the same bytes.
        metadata : dict
            Facts as the model's name, kept as strings beside `format`, `format_version` and `iterations`.

        Raises
        ------
        InputError
            When the file cannot be written.
        """
        # Numbers stay in float64, so that a loaded log repeats a run exactly.
        tensors = {
            f"iteration.{iteration:03d}/{edit.sublayer}/{part}": numpy.asarray(getattr(edit, part), order="C")
            for iteration, edits in enumerate(self.iterations)
            for edit in edits
            for part in EDIT_PARTS
        }
        facts = {name: str(value) for name, value in {**metadata, **LOG_FORMAT, "iterations": len(self)}.items()}
        write_atomically(path, _with_sorted_metadata(safetensors.numpy.save(tensors, facts)))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a log back, exactly as it was saved; within an iteration the edits are in the order of their names.

        Raises
        ------
        InputError
            When the file is missing, damaged, or not an edit log of this version.
        """
        metadata, tensors = _read(path)
        try:
            count = int(metadata["iterations"])
            if count > MAX_ITERATIONS:
                raise ValueError
            iterations = [{} for _ in range(count)]
            for key in sorted(tensors):
                iteration, sublayer, part = key.split("/")
                parts = iterations[int(iteration.removeprefix("iteration."))].setdefault(sublayer, {})
                parts[part] = tensors[key].item() if part in EDIT_NUMBERS else tensors[key]
            edits = tuple(tuple(SublayerEdit(name, **parts) for name, parts in each.items()) for each in iterations)
        except (KeyError, IndexError, TypeError, ValueError):
            raise InputError(f"{path}: an edit log with parts missing; write it again") from None
        for edit in chain.from_iterable(edits):
            if not _is_sound(edit):
                raise InputError(f"{path}: {edit.sublayer}: an edit that is no pair of vectors; write the log again")
        if not all(numpy.isfinite(tensor).all() for tensor in tensors.values()):
            raise InputError(f"{path}: an edit log with NaN or infinite values; write it again")
        return cls(edits)

    @cached_property
    def _by_sublayer(self) -> dict[str, tuple[SublayerEdit, ...]]:
        by_sublayer = {}
        for edit in chain.from_iterable(self.iterations):
            by_sublayer[edit.sublayer] = (*by_sublayer.get(edit.sublayer, ()), edit)
        return by_sublayer


def _is_sound(edit: SublayerEdit) -> bool:
    """Tell whether an edit's parts are vectors and numbers, and its outputs all as long as one another."""
    outputs = [edit.output_vector, edit.answer_vector, edit.benign_vector]
    vectors = [edit.input_vector, *outputs]
    return (
        all(vector.ndim == 1 and vector.size and vector.dtype.kind == "f" for vector in vectors)
        and len({vector.size for vector in outputs}) == 1
        and all(isinstance(getattr(edit, name), float) for name in EDIT_NUMBERS)
    )


def _read(path: str | Path) -> tuple[dict[str, str], dict[str, numpy.ndarray]]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata, tensors = file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"{path}: no such edit log; name a file that EditLog.save wrote") from None
    # numpy does not have all types that such a file can hold.
    except (OSError, safetensors.SafetensorError, TypeError, AttributeError):
        raise InputError(f"{path}: not a readable safetensors file; write the edit log again") from None
    if not LOG_FORMAT.items() <= metadata.items():
        version = LOG_FORMAT["format_version"]
        raise InputError(f"{path}: not an edit log of version {version}; name a file that EditLog.save wrote")
    return metadata, tensors


def _with_sorted_metadata(data: bytes) -> bytes:
    """Return the same file with its metadata in a fixed order, which safetensors leaves to chance."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]
