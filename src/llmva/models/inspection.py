"""What a model is like before its weights are loaded: what an alignment needs of it, and what it may trip over."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from llmva.core.errors import InputError, first_line
from llmva.models.chat_model import encode_chats, encode_texts, load_tokenizer
from llmva.models.configuration import LOADING_ERRORS, read_config, require_ends
from llmva.models.gguf_files import describe_gguf
from llmva.models.packed import require_numbers, require_readable
from llmva.models.sources import find_base, list_shards, locate
from llmva.models.sublayers import list_sublayers, require_dense
from llmva.models.templates import list_ends, opens_thinking, render_chats, written_behind_reply

# Generation settings that are set aside, since replies are to be the likeliest, and what each is where it does nothing.
SET_ASIDE = {
    "do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0,
    "min_new_tokens": 0, "stop_strings": None, "use_cache": True, "return_dict_in_generate": False,
}  # fmt: skip
TURN = [{"role": "user", "content": "Hello."}]
SYSTEM = [{"role": "system", "content": "Be brief."}, *TURN]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, and what to do about it."""

    level: Literal["ok", "warning", "problem"]
    what: str
    fix: str = ""


def inspect_model(source: str) -> Iterator[Finding]:
    """Yield what there is to know of a model, without loading its weights; ends at what makes the rest unknowable."""
    # Of an aligned model the edits say nothing new.
    source = find_base(source)
    try:
        location, options = locate(source)
        config = read_config(location, options)
    except InputError as error:
        yield Finding("problem", str(error))
        return
    except LOADING_ERRORS as error:
        yield Finding("problem", f"config.json cannot be read ({first_line(error)})", "restore the checkpoint")
        return
    yield from _inspect_architecture(source, config)
    yield from _inspect_files(location, source, bool(getattr(config, "quantization_config", None)))
    try:
        tokenizer = load_tokenizer(source)
    except InputError as error:
        yield Finding("problem", str(error))
        return
    yield from _inspect_template(tokenizer)
    yield from _inspect_ends(location, options, config, tokenizer)


def _inspect_architecture(source: str, config: PreTrainedConfig) -> Iterator[Finding]:
    text = config.get_text_config()
    try:
        context = getattr(text, "max_position_embeddings", None)
        shape = f"{text.num_hidden_layers} layers of width {text.hidden_size}"
        shape += f", a context of {context:,} tokens" if context else ""
        require_readable(config, source)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        require_dense(model, source)
    except InputError as error:
        yield Finding("problem", str(error))
        return
    except LOADING_ERRORS as error:
        fix = "name a decoder of a family transformers has"
        yield Finding("problem", f"{config.model_type}: cannot be built ({first_line(error)})", fix)
        return
    yield Finding("ok", f"{config.model_type}: {shape}")
    if getattr(config, "quantization_config", None):
        yield Finding("ok", "weights of 4 or 8 bits: edits go beside them, into an adapter, and into no checkpoint")
    weights = sum(weight.numel() for weight in model.parameters())
    yield Finding("ok", f"{weights / 1e9:.3g} billion weights; {len(list_sublayers(model))} sublayers can be edited")
    if text.tie_word_embeddings:
        yield Finding("ok", "its output layer shares the embeddings; edits touch neither")


def _inspect_files(location: Path | str, source: str, quantised: bool) -> Iterator[Finding]:
    if gguf := describe_gguf(source):
        kinds = ", ".join(f"{count} {kind}" for kind, count in gguf["gguf"]["tensors_by_type"].items())
        yield Finding("ok", f"a GGUF file, dequantised as it is loaded: {kinds}")
        return
    if not isinstance(location, Path):
        yield Finding("warning", "on the hub: its weights were not looked at", "load it once, or name its folder")
        return
    types = Counter()
    try:
        for name in sorted(list_shards(location)):
            with safe_open(location / name, framework="pt") as file:
                types.update(file.get_slice(key).get_dtype() for key in file.keys())  # noqa: SIM118
        if not quantised:
            require_numbers(location)
    except InputError as error:
        yield Finding("problem", str(error))
        return
    except (SafetensorError, OSError) as error:
        yield Finding("problem", f"{name} cannot be read ({first_line(error)})", "fetch it again")
        return
    stored = ", ".join(f"{count} {kind}" for kind, count in types.most_common())
    mixed = len(types) > 1 and not quantised
    fix = "say which with --dtype, or all become the configuration's" if mixed else ""
    yield Finding("warning" if mixed else "ok", f"tensors stored as {stored}", fix)


def _inspect_template(tokenizer: PreTrainedTokenizerBase) -> Iterator[Finding]:
    (written,) = render_chats(tokenizer, [TURN])
    yield Finding("ok", "its chat template writes a user's turn")
    (ids,) = encode_chats(tokenizer, ["Hello."])
    begin, name = tokenizer.bos_token_id, tokenizer.bos_token
    if begin is not None and ids[:2] == [begin, begin]:
        yield Finding("warning", f"its template begins with {name} twice", "remove one from chat_template.jinja")
    elif begin is not None and ids[0] == begin:
        yield Finding("ok", f"its template begins with {name}, and no second one is added")
    elif begin is not None and tokenizer("Hello.")["input_ids"][:1] == [begin]:
        fix = "add bos_token to the template if the model was trained with it"
        yield Finding("warning", f"its tokenizer begins texts with {name}, its template does not", fix)
    try:
        (with_system,) = render_chats(tokenizer, [SYSTEM])
    except Exception as error:  # A template is a program, and may raise anything.
        with_system = ""
        reason = f" ({first_line(error)})"
    else:
        reason = ""
    if "Be brief." in with_system:
        yield Finding("ok", "its template takes a system prompt")
    else:
        fix = "`steer` and run-time studies need one; `align` does not"
        yield Finding("warning", f"its template takes no system prompt{reason}", fix)
    if opens_thinking(tokenizer):
        fix = "give its thinking a budget (--thinking), or replies room (--max-new-tokens)"
        yield Finding("warning", "its template opens a thinking span before each reply", fix)


def _inspect_ends(
    location: Path | str, options: dict, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> Iterator[Finding]:
    if "gguf_file" in options:
        return
    try:
        settings = GenerationConfig.from_pretrained(location, **options)
    except LOADING_ERRORS:
        settings = GenerationConfig.from_model_config(config)
    try:
        require_ends(settings.eos_token_id, str(location))
    except InputError as error:
        yield Finding("problem", str(error))
        return
    ends = list_ends(settings.eos_token_id, tokenizer)
    written = written_behind_reply(tokenizer)
    (after,) = encode_texts(tokenizer, [written])
    if not ends:
        yield Finding("warning", "no token ends its replies", "name eos_token_id in generation_config.json")
    elif not written:
        fix = "`compare` and chats of several turns may go wrong"
        yield Finding("warning", "its template fails on a chat with a reply, or ends it with nothing", fix)
    elif not set(after) & set(ends):
        words = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(ends)))
        fix = "add the token that ends a turn to eos_token_id in generation_config.json, or replies run on"
        yield Finding("warning", f"replies end with {words}, which its template does not write behind one", fix)
    else:
        yield Finding("ok", f"replies end with {', '.join(map(repr, tokenizer.convert_ids_to_tokens(ends)))}")
    aside = [name for name, usual in SET_ASIDE.items() if getattr(settings, name, None) not in (None, usual)]
    if aside:
        yield Finding("ok", f"its settings {', '.join(aside)} are set aside: replies are to be the likeliest")
