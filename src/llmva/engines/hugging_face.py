"""Greedy responses in batches, with activations taken in generation's own prefill."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
from transformers import GenerationConfig

from llmva.models.activations import Activations, Capture
from llmva.models.batches import encode_replies, run_batches, token_positions
from llmva.models.chat_model import ChatModel, encode_chats, user_chats


@dataclass(frozen=True)
class Responses:
    """Replies in the order of the prompts.

    Attributes
    ----------
    texts : list of str
        Without special tokens.
    activations : Activations or None
        Of the prompts, when a capture was asked for.
    """

    texts: list[str]
    activations: Activations | None


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


def read_activations(
    chat_model: ChatModel, prompts: Sequence[str], *, capture: Capture, batch_size: int
) -> Activations:
    """Record the activations of prompts in a plain forward pass, without generating."""
    sequences = encode_chats(chat_model.tokenizer, user_chats(prompts))
    return run_batches(chat_model, sequences, _forward(chat_model), batch_size, capture, None)


def read_exchange_activations(
    chat_model: ChatModel,
    prompts: Sequence[str],
    replies: Sequence[str],
    *,
    capture: Capture,
    batch_size: int,
    tokens: str = "all",
    most: int | None = None,
) -> Activations:
    """Record the activations of prompts followed by given replies.

    Parameters
    ----------
    tokens : {"all", "reply"}
        Which tokens `capture.positions` speaks of; `last` is the exchange's last token either way.
    most : int, optional
        The largest number of tokens recorded, spread evenly over all of them: with `positions="all"`, the
        largest number of rows.
    """
    heads = encode_chats(chat_model.tokenizer, user_chats(prompts))
    tails = encode_replies(chat_model, replies)
    marks = [[int(tokens == "all")] * len(head) + [1] * len(tail) for head, tail in zip(heads, tails, strict=True)]
    marks = _thinned(marks, most) if most else marks
    sequences = [head + tail for head, tail in zip(heads, tails, strict=True)]
    return run_batches(chat_model, sequences, _forward(chat_model), batch_size, capture, None, marks)


def _forward(chat_model: ChatModel) -> Callable[[dict, list[int]], None]:
    def forward(batch: dict, indices: list[int]) -> None:
        chat_model.model(
            **batch, position_ids=token_positions(batch["attention_mask"]), use_cache=False, logits_to_keep=1
        )

    return forward


def _thinned(marks: list[list[int]], most: int) -> list[list[int]]:
    total = sum(map(sum, marks))
    kept = set(numpy.linspace(0, total - 1, min(most, total)).astype(int).tolist())
    numbers = iter(range(total))
    return [[int(bool(mark) and next(numbers) in kept) for mark in row] for row in marks]


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
