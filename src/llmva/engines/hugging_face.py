"""Greedy responses in batches, with activations taken in generation's own prefill."""

from collections.abc import Sequence

from transformers import GenerationConfig

from llmva.engines.base import Responses
from llmva.models.activations import Capture
from llmva.models.batches import encode_replies, run_batches
from llmva.models.chat_model import ChatModel, encode_chats, user_chats


def respond(
    chat_model: ChatModel,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    capture: Capture | None = None,
    progress: str | None = None,
    openings: Sequence[str] | None = None,
) -> Responses:
    """Answer single-turn prompts greedily; see `respond_to_chats`."""
    return respond_to_chats(
        chat_model,
        user_chats(prompts),
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        capture=capture,
        progress=progress,
        openings=openings,
    )


def respond_to_chats(
    chat_model: ChatModel,
    chats: Sequence[list[dict]],
    *,
    max_new_tokens: int,
    batch_size: int,
    capture: Capture | None = None,
    progress: str | None = None,
    openings: Sequence[str] | None = None,
) -> Responses:
    """Answer chats greedily, in left-padded batches of similar length.

    Parameters
    ----------
    chats : sequence of message lists
        Each encoded with the model's template, generation prompt included.
    max_new_tokens : int
        Longest reply, in tokens.
    batch_size : int
        Chats per batch; a batch that does not fit into memory is halved, and finished ones are kept.
    capture : Capture, optional
        What to record of the prompts.
    progress : str, optional
        Title of a progress bar.
    openings : sequence of str, optional
        Words that each reply is made to begin with; the texts returned begin with them too.
    """
    sequences = encode_chats(chat_model.tokenizer, chats)
    openings = openings or [""] * len(sequences)
    sequences = [ids + opening for ids, opening in zip(sequences, encode_replies(chat_model, openings), strict=True)]
    texts: list[str] = [""] * len(sequences)

    def generate(batch: dict, indices: list[int]) -> None:
        tokens = chat_model.model.generate(
            **batch,
            generation_config=_greedy(chat_model, max_new_tokens),
        )
        replies = tokens[:, batch["input_ids"].shape[1] :]
        for index, text in zip(
            indices, chat_model.tokenizer.batch_decode(replies, skip_special_tokens=True), strict=True
        ):
            texts[index] = (openings[index] + text).strip()

    activations = run_batches(chat_model, sequences, generate, batch_size, capture, progress)
    return Responses(texts, activations)


def _greedy(chat_model: ChatModel, max_new_tokens: int):
    own = chat_model.model.generation_config
    # Only the ends of sequences are taken over: with a shipped repetition penalty it would not be greedy.
    return GenerationConfig(
        do_sample=False,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        max_new_tokens=max_new_tokens,
        eos_token_id=own.eos_token_id if own.eos_token_id is not None else chat_model.tokenizer.eos_token_id,
        pad_token_id=chat_model.tokenizer.pad_token_id,
    )
