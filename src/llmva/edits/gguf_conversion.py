"""Write the edited model of a transformers checkpoint as one GGUF file for llama.cpp, one tensor at a time."""

from pathlib import Path

import gguf
import numpy
import safetensors
import torch

from llmva.core.errors import InputError
from llmva.edits.checkpoint import BIAS_OF
from llmva.edits.edited_model import require_found, require_shape
from llmva.edits.gguf_header import (
    Checkpoint,
    empty_parameters,
    new_writer,
    read_checkpoint,
    require_same_when_read,
    write_fields,
)
from llmva.edits.gguf_layout import CONVERTER, lay_out, name_tensor, require_blocks
from llmva.edits.log import EditLog
from llmva.edits.writers import edited_parameter
from llmva.models.sources import list_shards, local_folder, locate
from llmva.models.sublayers import sublayer_name

GgufType = gguf.GGMLQuantizationType
EDITABLE_TYPES = ("F32", "F16", "BF16")
OUTPUT = "lm_head.weight"
# Old checkpoints of Llama have this beside their weights; it follows from their configuration.
ROPE_BUFFER = "rotary_emb.inv_freq"


def convert_checkpoint(checkpoint: Checkpoint, log: EditLog, path: Path, kind: GgufType) -> None:
    """Write the edited model of a checkpoint as a GGUF file.

    Parameters
    ----------
    checkpoint : Checkpoint
        The base, as `require_convertible` returns it; its weights are on this machine.
    log : EditLog
        The edits; each matrix is summed in float32 and cast once.
    path : Path
        The file to write.
    kind : GGMLQuantizationType
        Of all matrices; norms and biases stay in F32.

    Raises
    ------
    InputError
        When the files have other tensors than the configuration says; when the log edits what they do not have; or
        when a matrix has larger values than F16 has.
    """
    parameters, shards = _list_parameters(checkpoint), _find_shards(checkpoint)
    _require_edited(checkpoint.source, log, parameters)
    writer = new_writer(checkpoint, path, kind)
    for name in shards:
        _list_tensor(writer, checkpoint, name, parameters[name], kind)
    try:
        write_fields(writer)
        _write_tensors(writer, checkpoint, shards, log, kind)
    finally:
        writer.close()


def require_convertible(source: str, kind: GgufType) -> Checkpoint:
    """Return a checkpoint of which a GGUF file can say everything, in matrices of a type; no weight is read.

    Raises
    ------
    InputError
        When its architecture, configuration, tokenizer or ends of replies are such that a file of it would be another
        model; or when its tensors are not those of its configuration, or have rows that are no multiple of a block.
    """
    checkpoint = read_checkpoint(source)
    for name, parameter in _list_parameters(checkpoint).items():
        if parameter.ndim > 1:
            require_blocks(source, name, parameter.shape[-1], kind)
    require_same_when_read(checkpoint)
    # A model on the hub may not be here yet.
    if isinstance(locate(source)[0], Path):
        _find_shards(checkpoint)
    return checkpoint


def _list_parameters(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Return the parameters that a file needs, on the meta device; a tied output is the embeddings again."""
    parameters = empty_parameters(checkpoint.config)
    tied = checkpoint.config.tie_word_embeddings
    return {name: each for name, each in parameters.items() if not (tied and name == OUTPUT)}


def _find_shards(checkpoint: Checkpoint) -> dict[str, Path]:
    """Return the file of each parameter, once it is known that the files have all of them and nothing else."""
    folder, wanted, found = local_folder(checkpoint.source), _list_parameters(checkpoint), {}
    for shard in sorted(list_shards(folder)):
        with safetensors.safe_open(folder / shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                if name in wanted:
                    _require_stored(folder / shard, name, file.get_slice(name), wanted[name])
                    found[name] = folder / shard
                elif name != OUTPUT and not name.endswith(ROPE_BUFFER):
                    raise InputError(f"CHECKPOINT: {folder / shard}: {name}: is no part of such a model; {CONVERTER}")
    if missing := sorted(wanted.keys() - found):
        raise InputError(f"CHECKPOINT: {folder}: has no {missing[0]}; restore the checkpoint")
    return found


def _require_stored(path: Path, name: str, stored, wanted: torch.Tensor) -> None:
    if stored.get_dtype() not in EDITABLE_TYPES:
        wrong = f"is of type {stored.get_dtype()}; name a base in bfloat16, float16 or float32"
        raise InputError(f"CHECKPOINT: {path}: {name}: {wrong}")
    if tuple(stored.get_shape()) != tuple(wanted.shape):
        wrong = f"has shape {tuple(stored.get_shape())}, and config.json says {tuple(wanted.shape)}"
        raise InputError(f"CHECKPOINT: {path}: {name}: {wrong}; restore the checkpoint")


def _require_edited(source: str, log: EditLog, parameters: dict[str, torch.Tensor]) -> None:
    """Raise an `InputError` when the log edits what is not there, or was made for a weight of another shape."""
    biased = [name for name in log.sublayers if any(edit.bias_step for edit in log.edits_of(name))]
    missing = {*log.sublayers, *map(BIAS_OF.format, biased)}
    for name, parameter in parameters.items():
        module, _, kind = name.rpartition(".")
        if (sublayer := sublayer_name(module)) in log.sublayers:
            missing.discard(BIAS_OF.format(sublayer) if kind == "bias" else sublayer)
            if kind == "weight":
                require_shape(sublayer, parameter.shape, log.edits_of(sublayer))
    require_found(source, missing)


def _list_tensor(
    writer: gguf.GGUFWriter, checkpoint: Checkpoint, name: str, parameter: torch.Tensor, kind: GgufType
) -> None:
    new = name_tensor(name, checkpoint.architecture, checkpoint.config.num_hidden_layers)
    stored = _type_of(parameter, kind)
    block, block_bytes = gguf.GGML_QUANT_SIZES[stored]
    size = parameter.numel() // block * block_bytes
    writer.add_tensor_info(new, parameter.shape, numpy.dtype("float32"), size, raw_dtype=stored)


def _write_tensors(
    writer: gguf.GGUFWriter, checkpoint: Checkpoint, shards: dict[str, Path], log: EditLog, kind: GgufType
) -> None:
    for name, path in shards.items():
        with safetensors.safe_open(path, framework="pt") as file:
            values = file.get_tensor(name)
        module, _, parameter = name.rpartition(".")
        sublayer = sublayer_name(module)
        edits = log.edits_of(sublayer) if sublayer in log.sublayers else ()
        values = edited_parameter(parameter, values, edits) if edits else values.float()
        laid_out = lay_out(name, values, checkpoint.config).contiguous()
        stored = _type_of(laid_out, kind)
        if stored == GgufType.F16 and laid_out.abs().max() > torch.finfo(torch.float16).max:
            raise InputError(f"CHECKPOINT: {path}: {name}: has larger values than F16; write CHECKPOINT=1")
        writer.write_tensor_data(gguf.quantize(laid_out.numpy(), stored))


def _type_of(parameter: torch.Tensor, kind: GgufType) -> GgufType:
    return GgufType.F32 if parameter.ndim == 1 else kind
