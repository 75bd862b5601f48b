"""Write an edited model as GGUF for llama.cpp: a checkpoint's as a new file, a GGUF file's as the file again.

Works from file to file, one tensor at a time. Of a GGUF file the metadata are copied as bytes, and so are all tensors
that are not edited.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import pack

import gguf
import numpy
import torch

from llmva.edits.checkpoint import BIAS_OF
from llmva.edits.edited_model import require_found, require_shape
from llmva.edits.gguf_conversion import convert_checkpoint, require_convertible
from llmva.edits.gguf_header import Checkpoint, edited_name
from llmva.edits.gguf_layout import require_blocks
from llmva.edits.log import EditLog
from llmva.edits.writers import edited_parameter
from llmva.models.gguf_files import GgufFile, find_gguf, open_reader
from llmva.models.sublayers import WRITERS

GgufType = gguf.GGMLQuantizationType
# Coarser types would round the edits away; these lose no more than F16, or than the base did.
KEPT_TYPES = (GgufType.F32, GgufType.F16, GgufType.BF16, GgufType.Q8_0)
FINE_TYPE = GgufType.F16
# Where transformers has the modules that gguf's table of names knows.
PARENTS = {"attention": "self_attn", "mlp": "mlp"}
EDITABLE_TENSORS = (".attn_output.weight", ".ffn_down.weight")


def export_gguf(source: str, log: EditLog, folder: Path, kind: GgufType | None = None) -> Path:
    """Write the edited model of a source into a folder, as `<name>-edited.gguf`, and return its path.

    Parameters
    ----------
    source : str
        The base: a GGUF file, as `llmva.models.gguf_files` has it, or a checkpoint.
    log : EditLog
        The edits; each tensor is summed in float32 and cast once.
    folder : Path
        Is made, or filled.
    kind : GGMLQuantizationType, optional
        F16 or Q8_0: of the edited matrices of a GGUF file, or of all matrices of a checkpoint. Without it those of a
        file keep the type that they had, or, where it is coarser than Q8_0, become F16; a checkpoint's become F16.

    Raises
    ------
    InputError
        When the source cannot be written so: see `require_gguf`; or when the log edits a weight or bias that the
        source does not have, or a weight of another shape.
    """
    base = require_gguf(source, kind)
    if isinstance(base, Checkpoint):
        target = folder / f"{edited_name(source)}.gguf"
        with _whole_file(target) as partial:
            convert_checkpoint(base, log, partial, kind or FINE_TYPE)
        return target
    target = folder / f"{base.path.stem}-edited.gguf"
    reader, edited = open_reader(base.path), _edited_tensors(source, base, log)
    with _whole_file(target) as partial, partial.open("wb") as stream:
        for part in _parts(reader, edited, log, kind):
            stream.write(part)
    return target


def require_gguf(source: str, kind: GgufType | None = None) -> GgufFile | Checkpoint:
    """Return the GGUF file or the checkpoint that a source names, once it is known that it can be written as GGUF.

    Raises
    ------
    InputError
        When a checkpoint is none that `llmva.edits.gguf_conversion` can convert; or when the rows of a matrix that may
        be edited are no multiple of a block of `kind`.
    """
    if (file := find_gguf(source)) is None:
        return require_convertible(source, kind or FINE_TYPE)
    for tensor in open_reader(file.path).tensors:
        if tensor.name.endswith(EDITABLE_TENSORS):
            require_blocks(source, tensor.name, tensor.shape[0], kind or FINE_TYPE)
    return file


@contextmanager
def _whole_file(target: Path) -> Iterator[Path]:
    """Give the path of a file that is there under its own name only once it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _edited_tensors(source: str, file: GgufFile, log: EditLog) -> dict[str, str]:
    """Return the sublayer of each tensor that is edited, by the tensor's name; weights, and biases where there are."""
    names, edited, missing = file.tensor_names, {}, []
    for sublayer in log.sublayers:
        kind, layer = sublayer.split(".")
        module = names.get_name(f"model.layers.{int(layer)}.{PARENTS[kind]}.{WRITERS[kind]}")
        weight, bias = f"{module}.weight", f"{module}.bias"
        edited |= {name: sublayer for name in (weight, bias) if name in file.tensor_types}
        if weight not in edited:
            missing.append(sublayer)
        if bias not in edited and any(edit.bias_step for edit in log.edits_of(sublayer)):
            missing.append(BIAS_OF.format(sublayer))
    require_found(source, missing)
    return edited


def _parts(reader: gguf.GGUFReader, edited: dict[str, str], log: EditLog, kind: GgufType | None) -> Iterator[bytes]:
    """Yield the bytes of the new file: metadata as they are, the list of tensors anew, tensors in their order."""
    types = {
        tensor.name: _new_type(tensor, kind) if tensor.name in edited else tensor.tensor_type
        for tensor in reader.tensors
    }
    in_order = sorted(reader.tensors, key=lambda tensor: tensor.data_offset)
    offsets, end = {}, 0
    for tensor in in_order:
        offsets[tensor.name] = end
        end = _aligned(end + _bytes_of(tensor, types[tensor.name]), reader)
    # A list's entry keeps its length, so that whatever follows stays where it is.
    begin = min(tensor.field.offset for tensor in reader.tensors)
    yield reader.data[:begin].tobytes()
    listed = b"".join(_list_tensor(tensor, types[tensor.name], offsets[tensor.name]) for tensor in reader.tensors)
    yield listed.ljust(reader.data_offset - begin, b"\0")
    for tensor in in_order:
        is_edited = tensor.name in edited
        data = _edit(tensor, types[tensor.name], edited[tensor.name], log) if is_edited else tensor.data.tobytes()
        yield data.ljust(_aligned(len(data), reader), b"\0")


def _new_type(tensor: gguf.ReaderTensor, kind: GgufType | None) -> GgufType:
    if kind and len(tensor.shape) > 1:
        return kind
    return tensor.tensor_type if tensor.tensor_type in KEPT_TYPES else FINE_TYPE


def _bytes_of(tensor: gguf.ReaderTensor, kind: GgufType) -> int:
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    return tensor.n_elements // block * block_bytes


def _aligned(size: int, reader: gguf.GGUFReader) -> int:
    return -(-size // int(reader.alignment)) * int(reader.alignment)


def _list_tensor(tensor: gguf.ReaderTensor, kind: GgufType, offset: int) -> bytes:
    *name_and_shape, _, _ = tensor.field.parts
    return b"".join(part.tobytes() for part in name_and_shape) + pack("<IQ", kind, offset)


def _edit(tensor: gguf.ReaderTensor, kind: GgufType, sublayer: str, log: EditLog) -> bytes:
    """Return the bytes of an edited tensor in its new type."""
    edits = log.edits_of(sublayer)
    # The file itself is mapped read-only.
    values = torch.from_numpy(numpy.array(gguf.dequantize(tensor.data, tensor.tensor_type)))
    parameter = tensor.name.rpartition(".")[2]
    if parameter == "weight":
        require_shape(sublayer, values.shape, edits)
    return gguf.quantize(edited_parameter(parameter, values, edits).numpy(), kind).tobytes()
