"""A byte-level tokenizer in the fields of a GGUF file: its words, merges, special tokens, ends and chat template.

llama.cpp has no normalisers: Qwen's, which joins letters and accents (NFC), is left out of all such files.
"""

import json

import gguf
from transformers import PreTrainedTokenizerBase

from llmva.core.errors import InputError
from llmva.edits.gguf_layout import CONVERTER
from llmva.models.gguf_pre_tokenizers import PRE_TOKENIZERS, name_pre_tokenizer

# The fields that name an end of replies.
END_WRITERS = ("add_eos_token_id", "add_eom_token_id", "add_eot_token_id")


def require_byte_level(source: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise an `InputError` unless a tokenizer is byte-level BPE, and llama.cpp cuts and merges texts as it does."""
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    if parts["model"]["type"] != "BPE" or (parts["decoder"] or {}).get("type") != "ByteLevel":
        _refuse(source, "is no byte-level BPE, as SentencePiece's are not")
    if name_pre_tokenizer(tokenizer) is None:
        _refuse(source, f"pre_tokenizer: cuts texts in none of the ways known here ({', '.join(PRE_TOKENIZERS)})")
    if (normalizer := parts["normalizer"]) not in (None, {"type": "NFC"}):
        _refuse(source, f"normalizer: is {normalizer['type']}, and llama.cpp has none")
    for token in parts["added_tokens"]:
        if flags := [flag for flag in ("lstrip", "rstrip", "single_word") if token[flag]]:
            _refuse(source, f"added_tokens: {token['content']} has {flags[0]}, which llama.cpp does not know")


def _refuse(source: str, wrong: str) -> None:
    raise InputError(f"CHECKPOINT: {source}: tokenizer.json: {wrong}; {CONVERTER}")


def add_tokenizer(
    writer: gguf.GGUFWriter, source: str, tokenizer: PreTrainedTokenizerBase, ends: list[int], rows: int
) -> None:
    """Add a tokenizer that `require_byte_level` accepts.

    Parameters
    ----------
    writer : GGUFWriter
        Is given the fields.
    source : str
        Whose tokenizer it is, for errors.
    tokenizer : PreTrainedTokenizerBase
        With its chat template.
    ends : list of int
        The tokens that end a reply.
    rows : int
        Of the table of embeddings, which may have more than there are tokens.

    Raises
    ------
    InputError
        When there are more tokens than rows, not one to three ends, or more around a text than a beginning and an end.
    """
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name_pre_tokenizer(tokenizer))
    _add_words(writer, source, tokenizer, rows)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    _add_ends(writer, source, tokenizer, ends)
    for name in ("bos", "unk", "pad"):
        if (number := getattr(tokenizer, f"{name}_token_id")) is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    _add_frame(writer, source, tokenizer)
    writer.add_chat_template(tokenizer.chat_template)


def _add_words(writer: gguf.GGUFWriter, source: str, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    words = {number: word for word, number in tokenizer.get_vocab().items()}
    if max(words) >= rows:
        _refuse(source, f"has a token {max(words)}, where the model has embeddings of {rows}")
    added = tokenizer.added_tokens_decoder

    def type_of(number: int) -> gguf.TokenType:
        if number in added:
            return gguf.TokenType.CONTROL if added[number].special else gguf.TokenType.USER_DEFINED
        return gguf.TokenType.NORMAL if number in words else gguf.TokenType.UNUSED

    writer.add_token_list([words.get(number, f"[PAD{number}]") for number in range(rows)])
    writer.add_token_types([type_of(number) for number in range(rows)])


def _add_ends(writer: gguf.GGUFWriter, source: str, tokenizer: PreTrainedTokenizerBase, ends: list[int]) -> None:
    if not 1 <= len(ends) <= len(END_WRITERS):
        wrong = f"{len(ends)} tokens end a reply, and a GGUF file names one to three"
        raise InputError(f"CHECKPOINT: {source}: generation_config.json: eos_token_id: {wrong}; {CONVERTER}")
    # Templates write the tokenizer's own end of a text.
    for write, number in zip(END_WRITERS, sorted(ends, key=lambda end: end != tokenizer.eos_token_id), strict=False):
        getattr(writer, write)(number)


def _add_frame(writer: gguf.GGUFWriter, source: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add whether a beginning and an end are put around texts."""
    plain, framed = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    for bos in (False, True):
        for eos in (False, True):
            if [tokenizer.bos_token_id] * bos + plain + [tokenizer.eos_token_id] * eos == framed:
                writer.add_add_bos_token(bos)
                writer.add_add_eos_token(eos)
                return
    _refuse(source, "post_processor: puts more around a text than its beginning and its end")
