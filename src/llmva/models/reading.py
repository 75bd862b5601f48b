"""Activations of prompts and exchanges, read in a plain forward pass without generating."""

from collections.abc import Sequence
from typing import Literal

import numpy

from llmva.models.activations import Activations, Capture
from llmva.models.batches import forward, run_batches
from llmva.models.chat_model import ChatModel, encode_with_replies


def read_activations(
    chat_model: ChatModel,
    prompts: Sequence[str],
    replies: Sequence[str] | None = None,
    *,
    capture: Capture,
    batch_size: int,
    tokens: Literal["all", "reply"] = "all",
    most: int | None = None,
) -> Activations:
    """Record the activations of prompts, or of prompts followed by given replies.

    Parameters
    ----------
    tokens : {"all", "reply"}
        Which tokens `capture.positions` speaks of; `last` is the exchange's last token either way.
    most : int, optional
        The largest number of tokens recorded, spread evenly over all of them: with `positions="all"`, the
        largest number of rows.
    """
    sequences, tails = encode_with_replies(chat_model.tokenizer, prompts, replies or [""] * len(prompts))
    marks = [
        [int(tokens == "all")] * (len(sequence) - len(tail)) + [1] * len(tail)
        for sequence, tail in zip(sequences, tails, strict=True)
    ]
    marks = _thinned(marks, most) if most else marks
    return run_batches(
        chat_model, sequences, lambda batch, _: forward(chat_model, batch), batch_size, capture, marks=marks
    )


def _thinned(marks: list[list[int]], most: int) -> list[list[int]]:
    total = sum(map(sum, marks))
    kept = set(numpy.linspace(0, total - 1, min(most, total)).astype(int).tolist())
    numbers = iter(range(total))
    return [[int(bool(mark) and next(numbers) in kept) for mark in row] for row in marks]
