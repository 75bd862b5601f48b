"""Weights of 4 or 8 bits, as bitsandbytes packs them on a GPU: told by their type, and read back as numbers."""

import importlib.util
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import PreTrainedConfig

from llmva.core.errors import InputError
from llmva.models.sources import list_shards

PACKAGE = "bitsandbytes"
# As safetensors calls the types whose values are the weights themselves.
NUMBERS = {"F64", "F32", "F16", "BF16"}
FIX = "name the model they were made from, in bfloat16 or float32"


def require_readable(config: PreTrainedConfig, source: str) -> None:
    """Raise an `InputError` for quantised weights, but for those of bitsandbytes where there is a GPU."""
    quantised = getattr(config, "quantization_config", None)
    if not quantised:
        return
    values = quantised if isinstance(quantised, dict) else quantised.to_dict()
    # Old checkpoints of bitsandbytes do not name it.
    packed = values.get("load_in_4bit") or values.get("load_in_8bit")
    method = values.get("quant_method") or (PACKAGE if packed else None)
    where = f"{source}: config.json: quantization_config"
    if getattr(method, "value", method) != PACKAGE:
        raise InputError(f"{where}: the weights are quantised ({method}), and rounding would undo the edits; {FIX}")
    if not has_gpu():
        raise InputError(f"{where}: weights of 4 or 8 bits need a GPU; {FIX}")
    if importlib.util.find_spec(PACKAGE) is None:
        raise InputError(f"{where}: {PACKAGE} is not installed; `pip install {PACKAGE}`, or {FIX}")


def require_numbers(folder: Path) -> None:
    """Raise an `InputError` where a folder's files hold matrices of codes that its `config.json` does not tell of.

    transformers would take the codes for the weights.
    """
    for name in sorted(list_shards(folder)):
        with safe_open(folder / name, framework="pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            codes = {key: part.get_dtype() for key, part in slices.items() if len(part.get_shape()) > 1}
        if wrong := next(((key, kind) for key, kind in codes.items() if kind not in NUMBERS), None):
            what = "{} is stored as {}, and config.json has no quantization_config".format(*wrong)
            raise InputError(f"{folder / name}: {what}: the weights are quantised; {FIX}")


def require_unpacked(config: PreTrainedConfig, what: str) -> None:
    """Raise an `InputError` where weights are to be changed that are packed."""
    if getattr(config, "quantization_config", None):
        raise InputError(f"{what}: weights of 4 or 8 bits cannot be changed; leave it out (an adapter holds edits)")


def has_gpu() -> bool:
    """Tell whether there is a GPU, on which packed weights are fast enough."""
    return torch.cuda.is_available()


def is_packed(module: torch.nn.Module) -> bool:
    """Tell whether bitsandbytes keeps a linear module's weight, in 4 or 8 bits."""
    return type(module._parameters.get("weight")).__module__.partition(".")[0] == PACKAGE


def unpack(module: torch.nn.Linear) -> torch.Tensor:
    """Return the weight that a packed module stands for, (d_out, d_in) in float32, where the module is."""
    # It imports bitsandbytes, which takes a second.
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight

    return dequantize_bnb_weight(module.weight, getattr(module, "state", None)).float()
