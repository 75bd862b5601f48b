"""SwFC as llama.cpp's control vector: it is a constant at every token, which that engine can add."""

from pathlib import Path

import gguf
import numpy

from llmva.core.errors import InputError
from llmva.steering.runtime.steering import RuntimeSteering

ARCHITECTURE = "controlvector"


def export_control_vector(path: Path, steering: RuntimeSteering, *, architecture: str, width: int) -> None:
    """Write alpha Delta mu v as a GGUF file for llama.cpp's `--control-vector`.

    Parameters
    ----------
    architecture : str
        The model's type, such as `llama`.
    width : int
        d.

    Raises
    ------
    InputError
        When the method is gated or leaves the prompt alone, which a constant cannot; or the layer is the first, which
        the format does not have.
    """
    if steering.method != "SwFC" or steering.position != "all":
        raise InputError(f"{steering.method}: a control vector is a constant at every token, and only SwFC is one")
    if steering.layer < 2:
        raise InputError("layer: is 1, and llama.cpp's control vectors begin behind the second block; choose another")
    step = (steering.alpha * steering.boundary.gap * steering.boundary.direction).astype(numpy.float32)
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    writer.add_string(f"{ARCHITECTURE}.model_hint", architecture)
    writer.add_uint32(f"{ARCHITECTURE}.layer_count", steering.layer - 1)
    # Its layers are counted from 0 by blocks, and a block's number stands for what it writes; all up to it must be
    # there.
    for layer in range(1, steering.layer):
        writer.add_tensor(
            f"direction.{layer}", step if layer == steering.layer - 1 else numpy.zeros(width, numpy.float32)
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
