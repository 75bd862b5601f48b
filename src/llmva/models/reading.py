"""Activations of prompts and exchanges, read in a plain forward pass without generating."""

from collections.abc import Sequence
from typing import Literal

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
    progress: str | None = None,
) -> Activations:
    """Record the activations of prompts, or of prompts followed by given replies.

    Prompts alone go through the model in the batches in which they are answered, and give the same bits.

    Parameters
    ----------
    tokens : {"all", "reply"}
        Which tokens `capture.positions` speaks of; `last` is the exchange's last token either way.
    progress : str, optional
        Title of a progress bar.
    """
    sequences, tails = encode_with_replies(chat_model.tokenizer, prompts, replies or [""] * len(prompts))
    marks = [
        [int(tokens == "all")] * (len(sequence) - len(tail)) + [1] * len(tail)
        for sequence, tail in zip(sequences, tails, strict=True)
    ]

    def read(batch: dict, _: list[int]) -> None:
        forward(chat_model, batch)

    options = {"marks": marks, "reads_only": replies is not None}
    return run_batches(chat_model, sequences, read, batch_size, capture, progress, **options)
