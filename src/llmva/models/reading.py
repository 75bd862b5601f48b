"""Activations of prompts and exchanges, read in a plain forward pass without generating."""

from collections.abc import Callable, Sequence

import numpy

from llmva.models.activations import Activations, Capture
from llmva.models.batches import encode_replies, run_batches, token_positions
from llmva.models.chat_model import ChatModel, encode_chats, user_chats


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
