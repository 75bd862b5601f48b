"""How a GGUF file names the way in which a byte-level tokenizer cuts texts before it merges: `tokenizer.ggml.pre`."""

import json

from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split
from transformers import PreTrainedTokenizerBase
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

# llama.cpp takes a word that is in the vocabulary whole where the name is this one, and merges elsewhere.
WHOLE_WORDS = "llama-bpe"


def _split_by(name: str) -> PreTokenizer:
    pattern = Regex(GGUF_PRE_TOKENIZER_SPLITS[name])
    return Sequence([Split(pattern, behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])


# llama.cpp has more names of the same ones, and more ways. Its `tekken` is not here, since it cuts words in two at
# combining marks, as in Hindi, where the tokenizers of that name do not.
PRE_TOKENIZERS = {
    **{name: _split_by(name) for name in ("llama-bpe", "qwen2")},
    "smollm": Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]),
    "gpt-2": ByteLevel(add_prefix_space=False),
}


def name_pre_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the name under which llama.cpp cuts texts and takes words as a tokenizer does; None where none does."""
    backend = tokenizer.backend_tokenizer
    if backend.pre_tokenizer is None:
        return None
    form, whole_words = _form(backend.pre_tokenizer), backend.model.ignore_merges
    names = (name for name, known in PRE_TOKENIZERS.items() if _form(known) == form)
    return next((name for name in names if (name == WHOLE_WORDS) == whole_words), None)


def is_known(name: object) -> bool:
    """Tell whether texts are cut here as a file's name says; a file without a name, or of the default, says nothing."""
    return name in (None, "default") or name in PRE_TOKENIZERS or name in GGUF_PRE_TOKENIZER_SPLITS


def complete_pre_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str | None) -> None:
    """Let a tokenizer that transformers read from a GGUF file cut texts and take words as the file's name says."""
    if name in PRE_TOKENIZERS:
        tokenizer.backend_tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]
        tokenizer.backend_tokenizer.model.ignore_merges = name == WHOLE_WORDS


def _form(pre_tokenizer: PreTokenizer) -> object:
    """Return what a pre-tokenizer does, as JSON; where it finds a word again in a text has no part in that."""
    return json.loads(
        pre_tokenizer.__getstate__(),
        object_hook=lambda part: {key: value for key, value in part.items() if key != "trim_offsets"},
    )
