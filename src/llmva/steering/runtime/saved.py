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
from llmva.models.offloading import all_stored_parameters
from llmva.steering.runtime.boundary import Boundary
from llmva.steering.runtime.steering import POSITIONS, RuntimeSteering
from llmva.steering.runtime.updates import UPDATES

DIRECTION_FORMAT = {"format": "llmva runtime steering", "format_version": "1"}
WEIGHTS = "weights"
NUMBERS = tuple(field.name for field in fields(Boundary) if field.name != "direction")


def save_steering(path: Path, steering: RuntimeSteering, base: dict[str, str], chat_model: ChatModel) -> None:
    """Write a steering with what it was made for.

    Parameters
    ----------
    base : dict of str to str
        `model`, `revision` and `key` (see `checkpoint_key`) of the model.
    chat_model : ChatModel
        The model, of whose weights some go into the file, so that others are told from it.
    """
    boundary = steering.boundary
    tensors = {name: numpy.array(getattr(boundary, name), dtype=numpy.float64) for name in NUMBERS}
    tensors[WEIGHTS] = sample_weights(chat_model)
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
        if name.endswith("deviation") and tensors[name] < 0:
            raise InputError(f"{path}: {name}: is negative; make the file again")
    direction = tensors["direction"]
    if direction.dtype != numpy.float32 or abs(numpy.linalg.norm(direction) - 1) > 1e-3:
        raise InputError(f"{path}: direction: is no float32 vector of length 1; make the file again")
    boundary = Boundary(tensors["direction"], **{name: float(tensors[name]) for name in NUMBERS})
    if chat_model is not None:
        _require_fit(path, boundary, words["layer"], metadata, chat_model)
        _require_same_weights(path, tensors.get(WEIGHTS), metadata, chat_model)
    return RuntimeSteering(boundary, **words)


def _read(path: Path) -> tuple[dict[str, numpy.ndarray], dict[str, str]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; name the direction.safetensors that `make steer` wrote")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in list(file.keys())}, file.metadata() or {}
    # numpy does not have all types that such a file can hold.
    except (safetensors.SafetensorError, OSError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({first_line(error)}); make or copy it again") from None


def _read_words(path: Path, metadata: dict[str, str]) -> dict:
    """Return method, alpha, layer and position, each of which may be anything in a file that someone has written."""
    if not DIRECTION_FORMAT.items() <= metadata.items():
        raise InputError(f"{path}: is no steering that `make steer` wrote; name its direction.safetensors")
    try:
        words = json.loads(metadata.get("steering", ""))
        read = {name: words[name] for name in ("method", "alpha", "layer", "position")}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: steering: cannot be read; make the file again") from None
    sound = {
        "method": read["method"] in tuple(UPDATES),
        "alpha": type(read["alpha"]) in (int, float) and 0 <= read["alpha"] <= 1000,
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


def sample_weights(chat_model: ChatModel) -> numpy.ndarray:
    """Return the first value of every parameter, (parameters,): nan for those on disk.

    It tells models apart wherever they lie and however they were loaded, which the key of a folder does not.
    """
    stored = (weight for _, weight in all_stored_parameters(chat_model.model) if weight.is_floating_point())
    values = [math.nan if weight.is_meta else float(weight.detach().flatten()[0]) for weight in stored]
    return numpy.array(values, numpy.float32)


def _require_same_weights(path: Path, weights: numpy.ndarray | None, metadata: dict, chat_model: ChatModel) -> None:
    sample = sample_weights(chat_model)
    known = weights is not None and weights.shape == sample.shape
    # Another type rounds: bfloat16 has three digits. What is on disk on one side tells nothing.
    if not known or (numpy.abs(weights - sample) > 0.01 * numpy.abs(weights) + 1e-6).any():
        raise InputError(f"{path}: was made for {metadata.get('model')}, whose weights are others; use that model")
