"""What transformers leaves out of a GGUF file: fields, how texts are cut, ends of turns, factors of positions."""

from pathlib import Path
from tempfile import TemporaryDirectory

import gguf
import torch
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from llmva.core.errors import InputError
from llmva.models.gguf_files import ANOTHER_FILE, GgufFile, open_reader
from llmva.models.gguf_pre_tokenizers import complete_pre_tokenizer, is_known
from llmva.models.templates import find_turn_end

# Of a GGUF file's kinds of tokenizers, the one that cuts texts before it merges.
BYTE_LEVEL = "gpt2"
# Fields that transformers reads of some architectures only, and the configuration's names for them.
CONFIG_FIELDS = {
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
END_FIELDS = (gguf.Keys.Tokenizer.EOS_ID, gguf.Keys.Tokenizer.EOT_ID, gguf.Keys.Tokenizer.EOM_ID)
ROPE_FACTORS = "rope_freqs.weight"
# Gemma's 27 billion parameters alone divide attention scores by other than the head's width; no field says so.
BLOCKS_OF_27B = {"gemma2": 46, "gemma3": 62}


def complete_config(config: PreTrainedConfig, file: GgufFile) -> None:
    """Set what the file says of a model's shape and transformers did not read.

    Raises
    ------
    InputError
        When the file turns another part of each head by position than transformers does.
    """
    for key, name in CONFIG_FIELDS.items():
        if (value := file.of_architecture(key)) is not None and hasattr(config, name):
            setattr(config, name, value)
    if hasattr(config, "query_pre_attn_scalar"):
        of_27b = BLOCKS_OF_27B.get(file.architecture) == config.num_hidden_layers
        width = config.hidden_size // config.num_attention_heads if of_27b else config.head_dim
        config.query_pre_attn_scalar = width
    _require_same_rotation(config, file)


def _require_same_rotation(config: PreTrainedConfig, file: GgufFile) -> None:
    turned = file.of_architecture("rope.dimension_count")
    width = getattr(config, "head_dim", None)
    if not width and getattr(config, "num_attention_heads", None):
        width = config.hidden_size // config.num_attention_heads
    if turned is None or not width:
        return
    share = (getattr(config, "rope_parameters", None) or {}).get("partial_rotary_factor")
    expected = getattr(config, "qk_rope_head_dim", None) or int(width * (share or 1))
    if turned != expected:
        key, wrong = f"{file.architecture}.rope.dimension_count", f"is {turned!r}, where transformers turns {expected}"
        raise InputError(f"{file.path}: {key}: {wrong} numbers of each head by position; {ANOTHER_FILE}")


def load_gguf_tokenizer(file: GgufFile, **options) -> PreTrainedTokenizerBase:
    """Load the tokenizer that a GGUF file describes, with its chat template; the options are transformers'.

    Raises
    ------
    InputError
        When the file has no chat template, or cuts texts in a way that is not known here.
    """
    name, merges = (file.metadata.get(key) for key in (gguf.Keys.Tokenizer.PRE, gguf.Keys.Tokenizer.MODEL))
    if merges == BYTE_LEVEL and not is_known(name):
        raise InputError(f"{file.path}: {gguf.Keys.Tokenizer.PRE}: is {name!r}, which is not read here; {ANOTHER_FILE}")
    # transformers prefers a tokenizer.json that lies beside the file, which may be another model's.
    with TemporaryDirectory() as alone:
        (Path(alone) / file.path.name).symlink_to(file.path.absolute())
        tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file=file.path.name, **options)
    if not tokenizer.chat_template:
        key = gguf.Keys.Tokenizer.CHAT_TEMPLATE
        fix = "`gguf-new-metadata --chat-template-file template.jinja old.gguf new.gguf` writes one in"
        raise InputError(f"{file.path}: {key}: the file has no chat template; {fix}")
    tokenizer.name_or_path = str(file.path)
    complete_pre_tokenizer(tokenizer, name)
    return tokenizer


def complete_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, file: GgufFile) -> None:
    """Let a model that transformers read from a GGUF file count positions and end turns as the file says.

    Raises
    ------
    InputError
        When the file has tensors that transformers left out.
    """
    _require_all_read(model, file)
    _apply_rope_factors(model, file)
    model.generation_config.eos_token_id = find_end_tokens(tokenizer, file)


def find_end_tokens(tokenizer: PreTrainedTokenizerBase, file: GgufFile) -> list[int]:
    """Return the tokens that end a reply: those of the file's fields, and the one that its template ends a turn with.

    Files of Gemma and Phi name the end of a text as their `eos_token_id`, where their templates end turns otherwise.
    """
    named = [file.metadata[key] for key in END_FIELDS if key in file.metadata]
    turn = find_turn_end(tokenizer)
    return list(dict.fromkeys([*named, *([] if turn is None else [turn])]))


def _require_all_read(model: PreTrainedModel, file: GgufFile) -> None:
    """Raise an `InputError` when transformers left tensors out, such as a bias that its configuration does not know."""
    names = file.tensor_names
    parts = (name.rpartition(".") for name in model.state_dict())
    taken = {f"{names.get_name(module)}.{kind}" for module, _, kind in parts} | {ROPE_FACTORS}
    # Experts are stacked in the file; whether the model may have any is asked elsewhere.
    if left := [name for name in file.tensor_types if name not in taken and "_exps." not in name]:
        raise InputError(f"{file.path}: {left[0]}: transformers leaves this tensor out; {ANOTHER_FILE}")


def _apply_rope_factors(model: PreTrainedModel, file: GgufFile) -> None:
    """Divide the frequencies of positions as the file says: Llama 3.1 and later are scaled so."""
    if ROPE_FACTORS not in file.tensor_types:
        return
    (factors,) = (tensor.data for tensor in open_reader(file.path).tensors if tensor.name == ROPE_FACTORS)
    for name, buffer in model.named_buffers():
        if name.endswith("inv_freq"):
            buffer.div_(torch.tensor(factors).to(buffer))
