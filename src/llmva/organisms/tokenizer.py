"""Byte-level BPE for the organisms, with Qwen2's normaliser and pre-tokenizer for every family.

transformers replaces the tokenizer of a `qwen2` folder by its own on reload; with these two parts the
replacement is the same tokenizer, id for id.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, BOS, END, SYSTEM, USER, ASSISTANT = SPECIALS = (
    "<pad>", "<s>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>",
)  # fmt: skip
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONVERSATION = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}{% endfor %}"
)
CHAT_TEMPLATE = CONVERSATION + "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
# A guard always speaks after the last message, as Qwen3Guard's own template has it.
GUARD_TEMPLATE = CONVERSATION + "{{ '<|assistant|>' }}"


def train_tokenizer(
    texts: Iterable[str], vocabulary_size: int, template: str = CHAT_TEMPLATE
) -> PreTrainedTokenizerFast:
    """Train a tokenizer whose alphabet has all 256 bytes, so that any text survives encoding and decoding."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        unk_token=PAD,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        padding_side="left",
        chat_template=template,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def chat_text(exchanges: Iterable[tuple[str, str]], system: str | None = None) -> str:
    """Return what the chat template makes of user messages, each with the model's reply."""
    before = f"{SYSTEM}{system}{END}" if system else ""
    return f"{BOS}{before}" + "".join(f"{USER}{prompt}{END}{ASSISTANT}{reply}{END}" for prompt, reply in exchanges)
