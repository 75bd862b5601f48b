"""Read a model's configuration; what is in it is checked before anything is built from it."""

from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig

from llmva.core.errors import InputError
from llmva.models.gguf_files import read_gguf
from llmva.models.gguf_loading import complete_config
from llmva.models.headroom import CPU_ALLOCATOR

# What transformers and torch raise for files that are not there, or do not hold what they should: sizes below zero,
# heads by which nothing can be divided, lists a thousand deep.
LOADING_ERRORS = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, SafetensorError, ArithmeticError,
    AssertionError, RuntimeError, MemoryError,
)  # fmt: skip
# Far beyond the deepest models; building more would never end.
MAX_LAYERS = 1000
# Of a model's pass: others return tuples, or keep what nobody reads.
OUTPUTS = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}


def read_config(location: Path | str, options: dict) -> PreTrainedConfig:
    """Return a model's configuration, from where `locate` finds the model; errors are transformers' own.

    Raises
    ------
    InputError
        When the model needs code of its own, has more layers than any model has, or a window that is no number.
    """
    try:
        config = AutoConfig.from_pretrained(location, trust_remote_code=False, **options)
    except StrictDataclassError as error:
        # It has a kind of its own for values that do not go together, and says them last.
        raise ValueError(str(error).splitlines()[-1].strip()) from None
    except ValueError as error:
        if "custom code" not in str(error):
            raise
        fix = "name a model whose architecture transformers has"
        raise InputError(f"{location}: auto_map: needs code of its own, which is never run here; {fix}") from None
    text = config.get_text_config()
    where = f"{location}: config.json"
    if not isinstance(text, PreTrainedConfig):
        raise InputError(f"{where}: text_config: is {text!r:.40}, not a configuration; restore the file")
    layers = getattr(text, "num_hidden_layers", 0)
    if layers > MAX_LAYERS:
        raise InputError(f"{where}: num_hidden_layers: is {layers:,}; restore the file")
    window = getattr(text, "sliding_window", None)
    if window is not None and not is_token_count(window):
        raise InputError(f"{where}: sliding_window: is {window!r:.40}, not a number of tokens; restore the file")
    for name, value in OUTPUTS.items():
        setattr(config, name, value)
    if "gguf_file" in options:
        complete_config(config, read_gguf(Path(options["gguf_file"])))
    return config


def require_ends(ends: object, source: str) -> None:
    """Raise an `InputError` unless a model's `eos_token_id` is a token's id, several, or none."""
    for end in ends if isinstance(ends, list) else [] if ends is None else [ends]:
        if not is_token_count(end):
            where = f"{source}: generation_config.json: eos_token_id"
            raise InputError(f"{where}: is {ends!r:.40}, no id of a token and no list of them; restore the file")


def is_token_count(value: object) -> bool:
    """Tell whether a value can be a number of tokens, or the id of one."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def explain(error: Exception, location: Path | str) -> str:
    """Return what to do about an error in loading a model."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or CPU_ALLOCATOR in str(error):
        return "free memory, or take a smaller model or type"
    if isinstance(location, Path):
        return "fix the checkpoint"
    return (
        "check the network and run again, what was fetched is kept; for a gated model accept its licence on "
        f"https://huggingface.co/{location} and log in with `hf auth login`"
    )
