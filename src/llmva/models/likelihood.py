"""How likely a model finds given replies, token by token or as a whole."""

from collections.abc import Iterator, Sequence

import numpy
import torch

from llmva.models.batches import batch_at, by_length, for_each_batch, forward, pad, read_lengths, run_batches
from llmva.models.chat_model import ChatModel, encode_with_replies

# Entries of logits that are taken into float32 at once: a quarter of a gigabyte.
MAX_LOGITS = 2**26


@torch.inference_mode()
def exchange_logits(
    chat_model: ChatModel, prompts: Sequence[str], replies: Sequence[str], *, batch_size: int
) -> Iterator[torch.Tensor]:
    """Yield, batch by batch, the logits (tokens, vocabulary) that predict the replies' tokens and their ends.

    The order of batches and rows depends on the lengths alone, so two models' logits can be compared.
    """
    sequences, tails = encode_with_replies(chat_model.tokenizer, prompts, replies)
    order, lengths, done = by_length(sequences), read_lengths(chat_model, sequences), 0
    while done < len(order):
        part = batch_at(order, done, batch_size, lengths)
        yield _reply_logits(chat_model, sequences, tails, part)
        done += len(part)


def _reply_logits(
    chat_model: ChatModel, sequences: list[list[int]], tails: list[list[int]], indices: list[int]
) -> torch.Tensor:
    parts = []

    def run(part: list[int]) -> None:
        longest = max(len(tails[index]) for index in part) + 1
        logits = forward(chat_model, pad(chat_model, [sequences[index] for index in part]), longest).logits
        parts.append(torch.cat([logits[row, longest - len(tails[index]) - 1 :] for row, index in enumerate(part)]))

    # What does not fit is computed in parts, and is one batch again: another model's must still match it.
    for_each_batch(indices, len(indices), run)
    return torch.cat(parts)


def reply_surprise(
    chat_model: ChatModel,
    prompts: Sequence[str | list[dict]],
    replies: Sequence[str],
    *,
    batch_size: int,
    begin: int = 1,
    end: int | None = None,
) -> numpy.ndarray:
    """Return how unlikely a model finds given replies.

    Parameters
    ----------
    begin, end : int
        The tokens of each reply that count. By default all after the first: that one carries the decision to answer,
        and a changed decision is no sign of broken language.

    Returns
    -------
    ndarray of float64, shape (n,)
        Mean negative log-likelihood, in nats per token; 0 for a reply without such tokens.
    """
    sequences, tails = encode_with_replies(chat_model.tokenizer, prompts, replies)
    surprise = numpy.zeros(len(sequences))

    def score(batch: dict, indices: list[int]) -> None:
        longest = max(len(tails[index]) for index in indices)
        logits = forward(chat_model, batch, longest + 1).logits[:, :-1]
        targets = batch["input_ids"][:, batch["input_ids"].shape[1] - longest :]
        loss = _cross_entropy(logits, targets)
        for row, index in enumerate(indices):
            counted = loss[row, longest - len(tails[index]) :][begin:end]
            if len(counted):
                surprise[index] = float(counted.mean())

    run_batches(chat_model, sequences, score, batch_size, reads_only=True)
    return surprise


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the loss of each token, (batch, positions), in float32, a few rows at a time where logits are large."""
    rows = max(1, MAX_LOGITS // max(1, logits[0].numel()))
    parts = [
        torch.nn.functional.cross_entropy(part.float().transpose(1, 2), aims, reduction="none")
        for part, aims in zip(logits.split(rows), targets.split(rows), strict=True)
    ]
    return torch.cat(parts)
