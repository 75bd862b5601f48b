"""What tells one state of a model from another: its configuration, and its weights as they are now."""

from itertools import chain

import torch

from llmva.core.provenance import digest
from llmva.models.chat_model import ChatModel

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Weights that are summed at once.
CHUNK = 2**24


@torch.no_grad()
def model_state(chat_model: ChatModel) -> str | None:
    """Return a digest of what determines a model's replies to given tokens, whoever changed it and however.

    None where weights alone do not say it: while hooks are on, with an adapter of peft, or when a part of the
    weights is not in memory.
    """
    model = chat_model.model
    if getattr(model, "_hf_peft_config_loaded", False):
        return None
    if is_hooked(model):
        return None
    tensors = dict(chain(model.named_parameters(), model.named_buffers()))
    if any(tensor.is_meta for tensor in tensors.values()):
        return None
    sums = [[name, str(tensor.dtype), list(tensor.shape), _checksum(tensor)] for name, tensor in tensors.items()]
    # Another device, number of threads or version of torch may round otherwise.
    machine = [chat_model.device.type, torch.get_num_threads(), torch.__version__]
    return digest([sums, model.config.to_json_string(), *machine])


def is_hooked(model: torch.nn.Module) -> bool:
    """Tell whether something watches or changes what the model's modules compute: hooks, or a `forward` of their own.

    That of accelerate, which only moves tensors between devices, does not count.
    """
    return any(
        module._forward_hooks or module._forward_pre_hooks or _has_own_forward(module) for module in model.modules()
    )


def _has_own_forward(module: torch.nn.Module) -> bool:
    return "forward" in vars(module) and not hasattr(module, "_hf_hook")


def _checksum(tensor: torch.Tensor) -> int:
    """Return the sum of a tensor's bits, taken as integers, each times an odd number of its own, modulo 2^64."""
    total = 0
    for number, part in enumerate(tensor.detach().flatten().split(CHUNK)):
        bits = part if part.dtype == torch.bool else part.view(INTEGERS[part.element_size()])
        start = number * CHUNK
        odd = 2 * torch.arange(start, start + len(part), device=part.device) + 1
        total += int((bits.long() * odd).sum())
    return total % 2**64
