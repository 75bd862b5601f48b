"""A steering in a file: `direction.safetensors` holds numbers and words, and nothing that runs."""

import json
import math
from dataclasses import fields
from pathlib import Path

import numpy
import safetensors
import safetensors.numpy

from llmva.core.errors import InputError, first_line
from llmva.core.paths import write_atomically
from llmva.models.chat_model import ChatModel
from llmva.models.sources import checkpoint_key
from llmva.steering.runtime.boundary import Boundary
from llmva.steering.runtime.steering import POSITIONS, RuntimeSteering
from llmva.steering.runtime.updates import UPDATES

DIRECTION_FORMAT = {"format": "llmva runtime steering", "format_version": "1"}
NUMBERS = tuple(field.name for field in fields(Boundary) if field.name != "direction")


def save_steering(path: Path, steering: RuntimeSteering, base: dict[str, str]) -> None:
    """Write a steering with what it was made for.

    Parameters
    ----------
    base : dict of str to str
        `model`, `revision` and `key` (see `checkpoint_key`) of the model.
    """
    boundary = steering.boundary
    tensors = {name: numpy.array(getattr(boundary, name), dtype=numpy.float64) for name in NUMBERS}
    words = {"method": steering.method, "alpha": steering.alpha, "layer": steering.layer, "position": steering.position}
    metadata = {**DIRECTION_FORMAT, **base, "steering": json.dumps(words)}
    write_atomically(path, safetensors.numpy.save({"direction": boundary.direction, **tensors}, metadata))


def read_steering(path: str | Path, chat_model: ChatModel | None = None) -> RuntimeSteering:
    """Read a steering, and see that it fits a model.

    Raises
    ------
    InputError
        When the file is missing, damaged or of another format, holds NaN, or was made for another model.
    """
    path = Path(path)
    tensors, metadata = _read(path)
    words = _read_words(path, metadata)
    for name in ("direction", *NUMBERS):
        if name not in tensors or not numpy.isfinite(tensors[name]).all():
            raise InputError(f"{path}: {name}: missing or not finite; make the file again")
        if tensors[name].ndim != (name == "direction"):
            raise InputError(f"{path}: {name}: has the shape {tensors[name].shape}; make the file again")
    boundary = Boundary(tensors["direction"], **{name: float(tensors[name]) for name in NUMBERS})
    if chat_model is not None:
        _require_fit(path, boundary, words["layer"], metadata, chat_model)
    return RuntimeSteering(boundary, **words)


def _read(path: Path) -> tuple[dict[str, numpy.ndarray], dict[str, str]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; name the direction.safetensors that `make steer` wrote")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in list(file.keys())}, file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged ({first_line(error)}); make or copy it again") from None


def _read_words(path: Path, metadata: dict[str, str]) -> dict:
    """Return method, alpha, layer and position, each of which may be anything in a file that someone has written."""
    if not DIRECTION_FORMAT.items() <= metadata.items():
        raise InputError(f"{path}: is no steering that `make steer` wrote; name its direction.safetensors")
    try:
        words = json.loads(metadata.get("steering", ""))
        read = {name: words[name] for name in ("method", "alpha", "layer", "position")}
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: steering: cannot be read; make the file again") from None
    sound = {
        "method": read["method"] in tuple(UPDATES),
        "alpha": type(read["alpha"]) in (int, float) and math.isfinite(read["alpha"]),
        "layer": type(read["layer"]) is int,
        "position": read["position"] in POSITIONS,
    }
    if wrong := [name for name, is_sound in sound.items() if not is_sound]:
        raise InputError(f"{path}: {wrong[0]}: is {read[wrong[0]]!r}; make the file again")
    return read


def _require_fit(path: Path, boundary: Boundary, layer: int, metadata: dict[str, str], chat_model: ChatModel) -> None:
    width, depth = chat_model.model.config.get_text_config().hidden_size, len(chat_model.blocks)
    if boundary.direction.shape != (width,):
        raise InputError(f"{path}: direction: has {boundary.direction.size} numbers, and the model's stream {width}; "
                         f"use {metadata.get('model')}")  # fmt: skip
    if not 1 <= layer <= depth:
        raise InputError(f"{path}: layer: is {layer}, and the model has {depth}; use {metadata.get('model')}")
    # A model that a caller loaded by other means has no source, and then no key.
    if chat_model.source and checkpoint_key(chat_model.source) != metadata.get("key"):
        raise InputError(f"{path}: was made for {metadata.get('model')}, and not for {chat_model.source}; use that one")
