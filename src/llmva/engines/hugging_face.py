"""The engine of transformers, `generate`: what `greedy` is held to, and the way for other architectures."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from transformers import GenerationConfig

from llmva.engines.base import Responses
from llmva.models.activations import Capture
from llmva.models.batches import run_batches
from llmva.models.chat_model import ChatModel, encode_with_replies
from llmva.models.templates import decode_replies, list_ends


def respond(
    chat_model: ChatModel,
    prompts: Sequence[str | list[dict]],
    *,
    max_new_tokens: int,
    batch_size: int,
    capture: Capture | None = None,
    progress: str | None = None,
    openings: Sequence[str] | None = None,
) -> Responses:
    """Answer prompts or chats greedily; see `Engine`."""
    openings = openings or [""] * len(prompts)
    sequences, _ = encode_with_replies(chat_model.tokenizer, prompts, openings)
    texts = [""] * len(sequences)

    def generate(batch: dict, indices: list[int]) -> None:
        tokens = chat_model.model.generate(**batch)
        replies = tokens[:, batch["input_ids"].shape[1] :]
        endings = decode_replies(chat_model.tokenizer, replies)
        for index, ending in zip(indices, endings, strict=True):
            texts[index] = (openings[index] + ending).strip()

    with _greedy(chat_model, max_new_tokens):
        return Responses(texts, run_batches(chat_model, sequences, generate, batch_size, capture, progress))


def end_tokens(chat_model: ChatModel) -> list[int]:
    """Return the tokens that end a reply: those that the model ships, or else its tokenizer's; see `list_ends`."""
    settings = chat_model.model.generation_config
    return list_ends(settings.eos_token_id if settings else None, chat_model.tokenizer)


@contextmanager
def _greedy(chat_model: ChatModel, max_new_tokens: int) -> Iterator[None]:
    """Put the settings that the model ships aside, but for the ends of replies.

    With a penalty or a shortest length it would not be greedy, and `generate` fills in whatever it is not given.
    """
    shipped, ends = chat_model.model.generation_config, end_tokens(chat_model) or None
    chat_model.model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=chat_model.padding
    )
    try:
        yield
    finally:
        chat_model.model.generation_config = shipped
