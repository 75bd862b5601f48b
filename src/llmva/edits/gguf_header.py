"""What a GGUF file says of a checkpoint, tensors aside, and the proof that it is read as the same model.

The fields are written to a file of their own and read again as any GGUF file is: what does not come back is refused.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import gguf
import numpy
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from llmva.core.errors import InputError, first_line
from llmva.core.paths import anchored
from llmva.edits.gguf_layout import CONVERTER, NO_CAP, add_shape, find_architecture
from llmva.edits.gguf_tokenizer import add_tokenizer, require_byte_level
from llmva.models.chat_model import encode_chats, encode_texts, load_tokenizer
from llmva.models.configuration import LOADING_ERRORS, read_config
from llmva.models.gguf_files import GgufFile, read_gguf
from llmva.models.gguf_loading import load_gguf_tokenizer
from llmva.models.sources import locate, split_source
from llmva.models.templates import list_ends

# What a configuration has beyond what its model computes; where the tokens of its ends are is compared by itself.
OTHER_SETTINGS = {
    "use_cache", "initializer_range", "pretraining_tp", "max_window_layers", "original_max_position_embeddings",
    "attention_dropout", "resid_pdrop", "embd_pdrop", "bos_token_id", "eos_token_id", "pad_token_id",
    "tie_word_embeddings",
}  # fmt: skip
# Letters of several scripts, digits, runs of spaces and line breaks, contractions and signs.
PROBE_TEXTS = [
    "Hello, world! It's 2024, and we'LL see 3.14159 or 1,000,000.",
    "  two  spaces\n\n and\ttabs \r\n   12  34",
    "def f(x):\n    return {'a': x**2}  # ok\n",
    "Größe, naïve, Ελλάδα, Привет, 繩子 と かな, हिन्दी, العربية 123",
    "🪢👩‍👩‍👧 — “quotes” … ½ ² ٣",
]
PROBE_CHATS = ["Hello.", [{"role": "user", "content": part} for part in PROBE_TEXTS[:1]]]
WORDS = (gguf.Keys.Tokenizer.LIST, gguf.Keys.Tokenizer.TOKEN_TYPE, gguf.Keys.Tokenizer.MERGES)
FILE_TYPES = {
    gguf.GGMLQuantizationType.F16: gguf.LlamaFileType.MOSTLY_F16,
    gguf.GGMLQuantizationType.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of transformers, without its weights.

    Attributes
    ----------
    source : str
        As `llmva.models.sources` has it.
    config : PreTrainedConfig
        Of a dense decoder that `gguf_layout` knows.
    tokenizer : PreTrainedTokenizerBase
        With its chat template.
    ends : list of int
        The tokens that end a reply.
    """

    source: str
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    ends: list[int]

    @property
    def architecture(self) -> str:
        """The model's family, as llama.cpp calls it."""
        return find_architecture(self.source, self.config)


def edited_name(source: str) -> str:
    """Return what the edited model of a checkpoint is called."""
    return f"{anchored(split_source(source)[0]).name}-edited"


def read_checkpoint(source: str) -> Checkpoint:
    """Read what a checkpoint says of itself, or raise an `InputError` where no GGUF file can say it."""
    location, options = locate(source)
    try:
        config = read_config(location, options)
    except LOADING_ERRORS as error:
        fix = "fix the checkpoint" if isinstance(location, Path) else "check the network and run again"
        raise InputError(f"{source}: config.json: cannot be read ({first_line(error)}); {fix}") from None
    find_architecture(source, config)
    _require_plain(source, config)
    tokenizer = load_tokenizer(source)
    require_byte_level(source, tokenizer)
    return Checkpoint(source, config, tokenizer, _find_ends(location, options, config, tokenizer))


def new_writer(checkpoint: Checkpoint, path: Path, kind: gguf.GGMLQuantizationType) -> gguf.GGUFWriter:
    """Return the writer of a file that has all fields and no tensors yet; `kind` is the type of most matrices."""
    writer = gguf.GGUFWriter(path, checkpoint.architecture)
    writer.add_type("model")
    # llama.cpp takes this name for that of Microsoft's tokenizer, which is no byte-level one, and looks for its tokens.
    writer.add_name(re.sub("(?i)phi-?3", "Phi 3", edited_name(checkpoint.source)))
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_shape(writer, checkpoint.config)
    rows = checkpoint.config.vocab_size
    add_tokenizer(writer, checkpoint.source, checkpoint.tokenizer, checkpoint.ends, rows)
    return writer


def require_same_when_read(checkpoint: Checkpoint) -> None:
    """Raise an `InputError` unless a file's fields are read as the checkpoint's configuration, tokenizer and ends."""
    with TemporaryDirectory() as folder:
        # transformers reads long lists slowly, and a configuration needs none of them.
        short, whole = Path(folder) / "short.gguf", Path(folder) / "whole.gguf"
        _write_fields_alone(checkpoint, short, without=WORDS)
        _write_fields_alone(checkpoint, whole)
        file = replace(read_gguf(short), path=whole)
        _require_same_config(checkpoint, read_config(short.parent, {"gguf_file": str(short)}))
        _require_same_tokens(checkpoint, load_gguf_tokenizer(file), file)


def _write_fields_alone(checkpoint: Checkpoint, path: Path, without: tuple[str, ...] = ()) -> None:
    writer = new_writer(checkpoint, path, gguf.GGMLQuantizationType.F16)
    for key in without:
        del writer.kv_data[0][key]
    write_fields(writer)
    writer.close()


def write_fields(writer: gguf.GGUFWriter) -> None:
    """Write all that stands before the tensors."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()


def empty_parameters(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """Return a model's parameters by name, on the meta device; a tied output is one of them."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).state_dict()


def _require_plain(source: str, config: PreTrainedConfig) -> None:
    """Raise an `InputError` for what a comparison would not say clearly, or cannot see."""
    if (rope := config.rope_parameters.get("rope_type", "default")) != "default":
        _refuse(source, f"rope_parameters: scales positions ({rope}), which is not written here")
    if config.model_type == "gemma2" and not config.tie_word_embeddings:
        _refuse(source, "tie_word_embeddings: is false, and llama.cpp ties those of gemma2")


def _refuse(source: str, wrong: str) -> None:
    raise InputError(f"CHECKPOINT: {source}: config.json: {wrong}; {CONVERTER}")


def _find_ends(location, options: dict, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that `llmva.engines.hugging_face.end_tokens` gives once the model is loaded."""
    try:
        shipped = GenerationConfig.from_pretrained(location, **options).eos_token_id
    except OSError:
        shipped = config.eos_token_id
    return list_ends(shipped, tokenizer)


def _require_same_config(checkpoint: Checkpoint, read: PreTrainedConfig) -> None:
    config, said = checkpoint.config.to_dict(), read.to_dict()
    # What the class does not know, no model of it reads; what all classes have is no matter of a model.
    settings = type(checkpoint.config)().to_dict().keys() - PreTrainedConfig().to_dict().keys() - OTHER_SETTINGS
    for key in sorted(settings):
        if not _is_same(config.get(key), said.get(key)):
            _refuse(checkpoint.source, f"{key}: is {config.get(key)!r}, where a GGUF file would have {said.get(key)!r}")
    ours, theirs = (
        {name: each.shape for name, each in empty_parameters(one).items()} for one in (checkpoint.config, read)
    )
    if ours != theirs:
        name = min(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        _refuse(checkpoint.source, f"gives {name} a shape that a GGUF file would not")


def _is_same(value: object, said: object) -> bool:
    """Tell whether two settings mean the same, floats as they are stored."""
    if isinstance(value, dict) and isinstance(said, dict):
        return all(_is_same(value.get(key), said.get(key)) for key in value.keys() | said.keys())
    if isinstance(value, float) or isinstance(said, float):
        value, said = (None if one in (None, NO_CAP) else numpy.float32(one) for one in (value, said))
    return value == said or (not value and not said)


def _require_same_tokens(checkpoint: Checkpoint, read: PreTrainedTokenizerBase, file: GgufFile) -> None:
    tokenizer = checkpoint.tokenizer
    words = [token.content for token in tokenizer.added_tokens_decoder.values()]
    texts = [*PROBE_TEXTS, *(f"{word} 1 " for word in words), "a".join(words)]
    for encode in (encode_texts, lambda each, them: each(them)["input_ids"]):
        for text, ours, theirs in zip(texts, encode(tokenizer, texts), encode(read, texts), strict=True):
            if ours != theirs:
                wrong = f"has {text[:40]!r} in other tokens than a GGUF file's would be"
                raise InputError(f"CHECKPOINT: {checkpoint.source}: tokenizer.json: {wrong}; {CONVERTER}")
    if encode_chats(tokenizer, PROBE_CHATS) != encode_chats(read, PROBE_CHATS):
        wrong = "chat_template: writes other tokens than it would in a GGUF file"
        raise InputError(f"CHECKPOINT: {checkpoint.source}: {wrong}; {CONVERTER}")
