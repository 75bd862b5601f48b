"""Write an edited model as a plain checkpoint: the base's own files, with the edited matrices replaced.

Works from file to file, one shard at a time: names, types, sharding and every untouched tensor stay as they are,
and no model is loaded.
"""

import shutil
from pathlib import Path

import safetensors
import safetensors.torch

from llmva.core.errors import InputError
from llmva.edits.edited_model import require_found, require_shape
from llmva.edits.log import EditLog
from llmva.edits.writers import EDITABLE_TYPES, edited_parameter
from llmva.models.sources import ADAPTER_CONFIG, SHARD_INDEX, SINGLE_FILE, list_shards, local_folder
from llmva.models.sublayers import sublayer_name

# Weights in other files or formats would be the unedited ones; the named files are the base's own story.
LEFT_OUT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".gguf", ".onnx"}
# What is missing where a checkpoint has no such parameter.
BIAS_OF = "bias of {}"
LEFT_OUT_FILES = {"manifest.json", "README.md", ADAPTER_CONFIG}


def export_checkpoint(source: str, log: EditLog, folder: Path) -> None:
    """Write the edited model of `source` into a folder that transformers loads by itself.

    Parameters
    ----------
    source : str
        The base: a checkpoint folder, or `<hub id>@<revision>` that was fetched before.
    log : EditLog
        The edits; each matrix is summed in float32 and cast once to the type that its file has.
    folder : Path
        Is made, or filled.

    Raises
    ------
    InputError
        When the log edits a weight or bias that the checkpoint does not have, or a weight of another shape or type; or
        when a file with weights is not there.
    """
    base = local_folder(source)
    shards = list_shards(base)
    folder.mkdir(parents=True, exist_ok=True)
    biased = (name for name in log.sublayers if any(edit.bias_step for edit in log.edits_of(name)))
    missing = {*log.sublayers, *map(BIAS_OF.format, biased)}
    for name in sorted(shards):
        missing -= _write_shard(base / name, log, folder / name)
    # An index that lies beside a single file is of other weights.
    left_out = LEFT_OUT_FILES | ({SHARD_INDEX} if SINGLE_FILE in shards else set())
    for path in sorted(base.iterdir()):
        if path.is_file() and path.suffix not in LEFT_OUT_SUFFIXES and path.name not in left_out:
            shutil.copyfile(path, folder / path.name)
    require_found(source, missing)


def _write_shard(path: Path, log: EditLog, target: Path) -> set[str]:
    """Copy one file with its edited tensors replaced; return the sublayers whose weights, or biases, were in it."""
    with safetensors.safe_open(path, framework="pt") as shard:
        names = {name: sublayer for name in shard.keys() if (sublayer := _sublayer_of(name)) in log.sublayers}  # noqa: SIM118
        if not names:
            shutil.copyfile(path, target)
            return set()
        tensors = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
        for name, sublayer in names.items():
            dtype, parameter = tensors[name].dtype, name.rpartition(".")[2]
            if dtype not in EDITABLE_TYPES:
                raise InputError(f"{path}: {name} is of type {dtype}; name a base in bfloat16, float16 or float32")
            if parameter == "weight":
                require_shape(sublayer, tensors[name].shape, log.edits_of(sublayer))
            tensors[name] = edited_parameter(parameter, tensors[name], log.edits_of(sublayer)).to(dtype)
        safetensors.torch.save_file(tensors, target, metadata=shard.metadata())
        # safetensors lets nobody else read what it writes.
        shutil.copymode(path, target)
    return {BIAS_OF.format(sublayer) if name.endswith(".bias") else sublayer for name, sublayer in names.items()}


def _sublayer_of(name: str) -> str | None:
    path, _, kind = name.rpartition(".")
    return sublayer_name(path) if kind in ("weight", "bias") else None
