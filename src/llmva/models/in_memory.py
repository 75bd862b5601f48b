"""A model that is in memory already, as a user's notebook has it: held as `load_model` would have loaded it."""

import copy
import hashlib
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from safetensors import safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmva.core.errors import InputError
from llmva.core.provenance import digest
from llmva.models.chat_model import ChatModel, require_finite
from llmva.models.configuration import require_ends
from llmva.models.offloading import all_stored_parameters, read_offloaded
from llmva.models.packed import require_readable
from llmva.models.sources import HUB_ID, absolute_source, list_shards, local_folder
from llmva.models.state import is_hooked
from llmva.models.sublayers import require_dense
from llmva.models.templates import choose_template, require_template


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
        The digest of all that replies depend on: configuration, weights, buffers, tokenizer and tokens of ends. Of a
        model with hooks, which may do anything, it is a new one every time.
    """

    chat_model: ChatModel
    reference: ChatModel | None
    key: str

    def require_original(self) -> None:
        """Raise an `InputError` unless the weights are those that were held, which edits are made for."""
        before = dict(all_stored_parameters(self.reference.model))
        for name, weight in all_stored_parameters(self.chat_model.model):
            if not _same(weight, before.get(name)):
                fix = "leave the `with` block that edits it, or load it again"
                raise InputError(f"model: {name} is not as it was when the edits were made; {fix}")


def hold(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, editable: bool = True) -> HeldModel:
    """Check a model as `load_model` does, and, where it will be edited, copy it.

    Raises
    ------
    InputError
        No model of transformers that writes tokens, or no tokenizer; no chat template, non-finite or quantised
        weights, an adapter beside them, or a block without a linear `o_proj` and `down_proj`.
    """
    _require_kinds(model, tokenizer)
    name = _name(model)
    if isinstance(tokenizer.chat_template, dict):
        templates, tokenizer = tokenizer.chat_template, copy.copy(tokenizer)
        tokenizer.chat_template = choose_template(templates, name)
    if not isinstance(tokenizer.chat_template, str):
        raise InputError(f"{name}: the tokenizer has no chat template; set tokenizer.chat_template")
    require_template(tokenizer, name)
    require_readable(model.config, name)
    require_finite(model, name)
    if model.generation_config:
        require_ends(model.generation_config.eos_token_id, name)
    if editable:
        require_dense(model, name)
    reference = ChatModel(name, copy.deepcopy(model).eval(), tokenizer) if editable else None
    return HeldModel(ChatModel(name, model, tokenizer), reference, _digest(model, tokenizer))


def differs_from_files(model: PreTrainedModel, source: str) -> bool | None:
    """Tell whether the files of a source hold other weights than a model in memory; None where that is not known.

    Of packed weights it is not: in memory they are other numbers than those that are stored.
    """
    if getattr(model.config, "quantization_config", None):
        return None
    try:
        folder = local_folder(source)
        shards = sorted(list_shards(folder))
    except InputError:
        return None
    there, compared = dict(all_stored_parameters(model)), False
    for shard in shards:
        with safe_open(folder / shard, framework="pt") as file:
            for name in there.keys() & set(file.keys()):
                if there[name].is_meta:
                    continue
                if not _same(there[name], file.get_tensor(name).to(there[name].dtype)):
                    return True
                compared = True
    return False if compared else None


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout off inside the block."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _require_kinds(model: object, tokenizer: object) -> None:
    kind = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        fix = (
            "give a model of transformers (`merge_and_unload()` of one with an adapter, `_orig_mod` of a compiled one)"
        )
        raise InputError(f"model: is a {kind}; {fix}")
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise InputError(
            f"tokenizer: is a {type(tokenizer).__name__}; give the tokenizer that was loaded with the model"
        )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise InputError(f"model: this {kind} has an adapter, which edits would leave out; merge it into the weights")
    if model.get_output_embeddings() is None:
        raise InputError(f"model: is a {kind}, which writes no tokens; load it with AutoModelForCausalLM")
    if all(weight.is_meta for _, weight in all_stored_parameters(model)):
        raise InputError(f"model: this {kind} has no weights in memory (its device is meta); load them")


def _name(model: PreTrainedModel) -> str:
    """Return what the model was loaded from, as any folder names it, with the hub's commit where that is known."""
    name = absolute_source(str(getattr(model.config, "_name_or_path", "") or type(model).__name__))
    commit = getattr(model.config, "_commit_hash", None)
    return f"{name}@{commit}" if commit and HUB_ID.fullmatch(name) else name


def _same(weight: torch.Tensor, other: torch.Tensor | None) -> bool:
    if other is None or weight.shape != other.shape or weight.dtype != other.dtype:
        return False
    return weight.is_meta or torch.equal(weight.detach(), other.detach().to(weight.device))


def _digest(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    if is_hooked(model):
        return f"hooked:{uuid.uuid4().hex}"
    ends = model.generation_config.eos_token_id if model.generation_config else None
    # What a class of the user's own computes is not seen, but that it is another one.
    kinds = [[name, type(module).__module__, type(module).__qualname__] for name, module in model.named_modules()]
    facts = [model.config.to_json_string(use_diff=False), str(ends), _tokenizer_facts(tokenizer), kinds]
    seen = hashlib.sha256(digest(facts).encode())
    stored = dict(all_stored_parameters(model)) | dict(model.named_buffers())
    if getattr(model.config, "quantization_config", None):
        # What packed weights are scaled by.
        stored |= {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    for name, weight in sorted(stored.items()):
        # What does not fit into memory is read from disk.
        weight = read_offloaded(model, name) if weight.is_meta else weight
        seen.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        seen.update(weight.detach().to("cpu").contiguous().view(-1).view(torch.uint8).numpy())
    return f"sha256:{seen.hexdigest()}"


def _tokenizer_facts(tokenizer: PreTrainedTokenizerBase) -> list:
    if tokenizer.is_fast:
        # Padding and truncation are set anew by every call.
        pipeline = json.loads(tokenizer.backend_tokenizer.to_str()) | {"padding": None, "truncation": None}
    else:
        pipeline = sorted(tokenizer.get_vocab().items())
    return [type(tokenizer).__name__, pipeline, str(tokenizer.special_tokens_map), tokenizer.chat_template]
