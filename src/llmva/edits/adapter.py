"""Write edits as a LoRA adapter: W0 + sum_t a_t u_t^T is one already, so nothing is approximated."""

from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save

from llmva.core.errors import InputError
from llmva.edits.log import EditLog, SublayerEdit
from llmva.models.chat_model import ChatModel
from llmva.models.sources import shared_name, split_source

ADAPTER_WEIGHTS = "adapter_model.safetensors"


def export_adapter(chat_model: ChatModel, log: EditLog, folder: Path) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`, as peft loads them on the base.

    The rank is the largest number of edits that a module got, at most T, and scaling is 1. Matrices stay
    in float32; modules with fewer edits are filled up with zeros, since not every server takes several ranks.

    Raises
    ------
    InputError
        When the log holds no edit, or names a sublayer that the model does not have.
    """
    paths = {sublayer.name: sublayer.path for sublayer in chat_model.sublayers}
    if unknown := sorted(set(log.sublayers) - set(paths)):
        raise InputError(f"{chat_model.source}: has no {', '.join(unknown)}; use the model the edits were made for")
    if not log.sublayers:
        raise InputError("edits: none in this log, so there is no adapter to write; the original was chosen")
    rank = max(len(log.edits_of(sublayer)) for sublayer in log.sublayers)
    biased = any(edit.bias_step for edits in log.iterations for edit in edits)
    tensors = {
        f"base_model.model.{paths[sublayer]}.{part}": values
        for sublayer in log.sublayers
        for part, values in _factors(log.edits_of(sublayer), rank, biased).items()
    }
    _, revision = split_source(chat_model.source)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=shared_name(chat_model.source),
        revision=revision or None,
        r=rank,
        lora_alpha=rank,
        target_modules=[paths[sublayer] for sublayer in log.sublayers],
        lora_bias=biased,
        inference_mode=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    (folder / ADAPTER_WEIGHTS).write_bytes(save(dict(sorted(tensors.items())), metadata={"format": "pt"}))


def _factors(edits: tuple[SublayerEdit, ...], rank: int, biased: bool) -> dict[str, torch.Tensor]:
    outputs = torch.stack([torch.from_numpy(edit.output_vector) for edit in edits], dim=1)
    inputs = torch.stack([torch.from_numpy(edit.input_vector) for edit in edits])
    room = rank - len(edits)
    factors = {
        "lora_A.weight": torch.nn.functional.pad(inputs, (0, 0, 0, room)).contiguous(),
        "lora_B.weight": torch.nn.functional.pad(outputs, (0, room)).contiguous(),
    }
    if biased:
        factors["lora_B.bias"] = sum(torch.from_numpy(edit.output_vector) * edit.bias_step for edit in edits)
    return factors
