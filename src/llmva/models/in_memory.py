"""A model that is in memory already, as a user's notebook has it: held as `load_model` would have loaded it."""

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmva.core.errors import InputError
from llmva.models.chat_model import ChatModel, require_finite
from llmva.models.offloading import all_stored_parameters
from llmva.models.packed import require_readable
from llmva.models.sublayers import require_dense
from llmva.models.templates import require_template


@dataclass(frozen=True)
class HeldModel:
    """A user's model.

    Attributes
    ----------
    chat_model : ChatModel
        The user's own weights, which edits go into, and tokenizer.
    reference : ChatModel, optional
        A copy, which is never edited: it judges the language of replies. None where the model will not be edited.
    key : str
        The digest of the configuration and of all weights.
    """

    chat_model: ChatModel
    reference: ChatModel | None
    key: str


def hold(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, editable: bool = True) -> HeldModel:
    """Check a model as `load_model` does, and, where it will be edited, copy it.

    Raises
    ------
    InputError
        No chat template, non-finite or quantised weights, or a block without a linear `o_proj` and `down_proj`.
    """
    name = str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(f"{name}: the tokenizer has no chat template; set tokenizer.chat_template")
    require_template(tokenizer, name)
    require_readable(model.config, name)
    require_finite(model, name)
    if editable:
        require_dense(model, name)
    reference = ChatModel(name, copy.deepcopy(model).eval(), tokenizer) if editable else None
    return HeldModel(ChatModel(name, model, tokenizer), reference, _digest(model))


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout off inside the block."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _digest(model: PreTrainedModel) -> str:
    seen = hashlib.sha256(model.config.to_json_string(use_diff=False).encode())
    stored = dict(all_stored_parameters(model))
    if getattr(model.config, "quantization_config", None):
        # What packed weights are scaled by.
        stored |= {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    for name, weight in sorted(stored.items()):
        seen.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        seen.update(weight.detach().to("cpu").contiguous().view(-1).view(torch.uint8).numpy())
    return f"sha256:{seen.hexdigest()}"
