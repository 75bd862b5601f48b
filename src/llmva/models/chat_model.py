"""Load a chat model and encode chats: the same way for organisms and real models."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from weakref import WeakKeyDictionary

import psutil
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from llmva.core.errors import InputError, first_line
from llmva.models.configuration import LOADING_ERRORS, explain, read_config, require_ends
from llmva.models.gguf_files import read_gguf
from llmva.models.gguf_loading import complete_model, load_gguf_tokenizer
from llmva.models.offloading import all_stored_parameters, input_device
from llmva.models.packed import require_numbers, require_readable
from llmva.models.sources import find_base, has_weights, local_folder, locate
from llmva.models.sublayers import Sublayer, list_blocks, list_sublayers, require_dense
from llmva.models.templates import choose_template, render_chats, require_template

# Of a GPU's memory; the rest is for keys, values and logits.
SHARE_FOR_WEIGHTS = 0.8
# Token ids of single turns, by tokenizer, template and turn.
_ENCODED: WeakKeyDictionary = WeakKeyDictionary()


@dataclass(frozen=True)
class ChatModel:
    """A loaded model with its tokenizer, and the source it was loaded from, as `load_model` takes it."""

    source: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def sublayers(self) -> tuple[Sublayer, ...]:
        """All sublayers, attention 0 … L-1, then MLP 0 … L-1."""
        return list_sublayers(self.model)

    @cached_property
    def blocks(self) -> tuple[torch.nn.Module, ...]:
        """The decoder blocks, first to last."""
        return list_blocks(self.model)

    @property
    def device(self) -> torch.device:
        """Where its inputs go."""
        return input_device(self.model)

    @property
    def vocabulary(self) -> int:
        """How many token ids have an embedding."""
        return self.model.get_input_embeddings().num_embeddings

    @property
    def padding(self) -> int:
        """The id of padding: any will do, since it is masked, but for one without an embedding."""
        known = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        return next((number for number in known if number is not None and number < self.vocabulary), 0)

    @property
    def writers(self) -> dict[str, torch.nn.Linear]:
        """The editable module of each sublayer, by the sublayer's name."""
        return {sublayer.name: sublayer.module for sublayer in self.sublayers}


def load_model(source: str, *, dtype: str = "float32", device: str | None = None, editable: bool = True) -> ChatModel:
    """Load a checkpoint folder, a GGUF file or a hub model for inference.

    Parameters
    ----------
    source : str
        A folder (relative to the repository's root, or absolute), or a hub id and a revision as in
        `owner/name@revision`: a study names exact weights. Or a GGUF file, which is dequantised; see
        `llmva.models.gguf_files`.
    dtype : str
        Of the weights, as in `StudyParams`; or `auto`, as they are stored.
    device : str, optional
        Torch device. Without it the GPUs that are there share the model, and what does not fit stays on the CPU;
        without a GPU it is the CPU.
    editable : bool
        Whether it must be a dense decoder, whose sublayers can be edited; a judge need not be.

    Raises
    ------
    InputError
        No weights, no chat template, non-finite weights, quantised ones (but for bitsandbytes' on a GPU), or a block
        without a linear `o_proj` and `down_proj` to edit.
    """
    if find_base(source) != source:
        raise ValueError("a base alone is not the aligned model; see llmva.edits.loading")
    location, pinned = locate(source)
    shared = device is None and torch.cuda.is_available()
    options = {**pinned, "device_map": "auto", "max_memory": _room()} if shared else pinned
    try:
        config = read_config(location, pinned)
        require_readable(config, source)
        tokenizer = load_tokenizer(source)
        model = _load_weights(location, config, dtype, options)
    except LOADING_ERRORS as error:
        raise InputError(f"{source}: cannot be loaded ({first_line(error)}); {explain(error, location)}") from None
    require_ends(model.generation_config.eos_token_id, source)
    if "gguf_file" not in pinned and not getattr(model.config, "quantization_config", None):
        folder = location if isinstance(location, Path) else local_folder(source)
        # Of some models of the hub, transformers takes converted weights from another place.
        if has_weights(folder):
            require_numbers(folder)
    require_finite(model, source)
    if editable:
        require_dense(model, source)
    if "gguf_file" in pinned:
        complete_model(model, tokenizer, read_gguf(Path(pinned["gguf_file"])))
    return ChatModel(source, model.to(device) if device else model, tokenizer)


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load a checkpoint's tokenizer, padding on the left; see `load_model`."""
    location, pinned = locate(source)
    try:
        tokenizer = _load_tokenizer(location, pinned)
        # What is wrong with it may show only when it is used.
        encode_texts(tokenizer, ["Hello."])
    except LOADING_ERRORS as error:
        raise InputError(f"{source}: cannot be loaded ({first_line(error)}); {explain(error, location)}") from None
    if isinstance(tokenizer.chat_template, dict):
        tokenizer.chat_template = choose_template(tokenizer.chat_template, source)
    require_template(tokenizer, source)
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _load_tokenizer(location: Path | str, options: dict) -> PreTrainedTokenizerBase:
    if "gguf_file" in options:
        return load_gguf_tokenizer(read_gguf(Path(options["gguf_file"])), padding_side="left")
    return AutoTokenizer.from_pretrained(location, padding_side="left", trust_remote_code=False, **options)


def encode_chats(tokenizer: PreTrainedTokenizerBase, chats: Sequence[str | list[dict]]) -> list[list[int]]:
    """Return each chat's token ids, generation prompt included; a string is one user turn, without a system prompt.

    The template writes the special tokens; the tokenizer adds none, so there is no double BOS.
    Every generation, capture and judgement goes through here. Single turns are remembered, since a loop asks the same
    ones at every look.
    """
    known = _ENCODED.setdefault(tokenizer, {}).setdefault(tokenizer.chat_template, {})
    turns = [chat for chat in dict.fromkeys(chat for chat in chats if isinstance(chat, str)) if chat not in known]
    single = [[{"role": "user", "content": turn}] for turn in turns]
    known |= zip(turns, encode_texts(tokenizer, render_chats(tokenizer, single)), strict=True)
    talks = [chat for chat in chats if not isinstance(chat, str)]
    encoded = iter(encode_texts(tokenizer, render_chats(tokenizer, talks)))
    return [known[chat] if isinstance(chat, str) else next(encoded) for chat in chats]


def encode_with_replies(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[str | list[dict]], replies: Sequence[str]
) -> tuple[list[list[int]], list[list[int]]]:
    """Return the token ids of chats with the reply, or its beginning, that follows each; and those of the replies."""
    heads = encode_chats(tokenizer, chats)
    tails = encode_texts(tokenizer, replies)
    return [head + tail for head, tail in zip(heads, tails, strict=True)], tails


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of texts as they stand, such as replies."""
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"] if len(texts) else []


def _load_weights(location, config, dtype: str, options: dict) -> PreTrainedModel:
    options = {**options, "config": config, "dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    if getattr(config, "attn_logit_softcapping", None):
        # The fused attention kernels leave out Gemma-2's soft-capping.
        options["attn_implementation"] = "eager"
    if "gguf_file" in options:
        options["quantization_config"] = GgufConfig(dequantize=True)
    else:
        # Also where a file that could run code lies beside one of other tensors.
        options["use_safetensors"] = True
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            location, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False, **options
        )
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
    _require_all_loaded(report)
    if getattr(model, "_hf_peft_config_loaded", False):
        # Of a folder on the hub, which nobody has looked into before.
        raise ValueError("an adapter lies beside the model's weights")
    return model


def _require_all_loaded(report: dict) -> None:
    """Raise where transformers would go on with random numbers in a weight's place, or without a stored weight."""
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"weights missing: {', '.join(missing[:3])}")
    if mismatched := sorted(name for name, *_ in report["mismatched_keys"]):
        raise ValueError(f"weights of another shape than the configuration says: {', '.join(mismatched[:3])}")
    if left := sorted(report["unexpected_keys"]):
        raise ValueError(f"weights that the configuration has no place for: {', '.join(left[:3])}")


def require_finite(model: PreTrainedModel, source: str) -> None:
    """Raise an `InputError` where a weight is not finite; those on the disk are not read."""
    for name, weight in all_stored_parameters(model):
        if not weight.is_meta and not torch.isfinite(weight).all():
            raise InputError(f"{source}: {name} holds NaN or infinite weights; restore the checkpoint")


def _room() -> dict[int | str, int]:
    """Return the bytes that weights may take: of each GPU what is free beyond a reserve, and of the CPU's memory."""
    memory = {gpu: torch.cuda.mem_get_info(gpu) for gpu in range(torch.cuda.device_count())}
    # The reserve is a share of the whole, so that it is still there after the third model.
    room = {gpu: max(0, int(free - (1 - SHARE_FOR_WEIGHTS) * total)) for gpu, (free, total) in memory.items()}
    return {**room, "cpu": int(SHARE_FOR_WEIGHTS * psutil.virtual_memory().available)}
