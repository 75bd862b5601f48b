"""How likely a model finds given replies, token by token or as a whole."""

import copy
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy
import torch
from transformers import DynamicCache

from llmva.models.batches import batch_at, by_length, for_each_batch, forward, pad, read_lengths, run_batches
from llmva.models.chat_model import ChatModel, encode_chats, encode_texts, encode_with_replies

# Entries of logits that are taken into float32 at once: a quarter of a gigabyte.
MAX_LOGITS = 2**26


class ReplyScore(NamedTuple):
    """How likely a reply is: its log-likelihood in nats, summed over so many tokens; whether it is the greedy one."""

    log_likelihood: float
    tokens: int
    is_greedy: bool


def score_replies(
    chat_model: ChatModel, prompts: Sequence[str], replies: Sequence[Sequence[str]], *, batch_size: int
) -> list[list[ReplyScore]]:
    """Score one or more replies to each prompt, none of them empty; the end of a reply is no part of it.

    Each prompt is read once, whatever the number of its replies. See `score_columns` for a model that is steered.
    """
    heads = encode_chats(chat_model.tokenizer, prompts)
    tails = [encode_texts(chat_model.tokenizer, given) for given in replies]
    scores: list[list[ReplyScore]] = [[] for _ in heads]

    def run(rows: Sequence[int]) -> None:
        # Where a prompt has fewer replies than others, any token stands for the missing ones.
        columns = list(zip_longest(*(tails[row] for row in rows), fillvalue=[0]))
        found = zip(*score_columns(chat_model, [heads[row] for row in rows], columns), strict=True)
        for row, scored in zip(rows, found, strict=True):
            scores[row] = list(scored[: len(tails[row])])

    longest = [head + max(tail, key=len) for head, tail in zip(heads, tails, strict=True)]
    for_each_batch(by_length(longest), batch_size, run, read_lengths(chat_model, longest))
    return scores


@torch.inference_mode()
def score_columns(
    chat_model: ChatModel, heads: list[list[int]], columns: Sequence[Sequence[list[int]]]
) -> list[list[ReplyScore]]:
    """Score columns of replies, each with one for every prompt of a batch, and return columns.

    Prompt and reply go in one after the other, as in generation: steering tells them apart by the pass.

    Parameters
    ----------
    heads : list of list of int
        The prompts' tokens.
    columns : sequence of sequence of list of int
        The replies' tokens.
    """
    prompt, cache = pad(chat_model, heads), DynamicCache(config=chat_model.model.config)
    first = forward(chat_model, prompt, cache=cache).logits
    return [_score_tails(chat_model, prompt["attention_mask"], cache, first, list(tails)) for tails in columns]


def _score_tails(
    chat_model: ChatModel, is_prompt: torch.Tensor, cache: DynamicCache, first: torch.Tensor, tails: list[list[int]]
) -> list[ReplyScore]:
    reply = pad(chat_model, tails, "right")
    tokens, is_token, logits = reply["input_ids"], reply["attention_mask"], first
    if tokens.shape[1] > 1:
        later = chat_model.model(
            input_ids=tokens,
            attention_mask=torch.cat([is_prompt, is_token], dim=1),
            position_ids=is_prompt.sum(1, keepdim=True) + torch.arange(tokens.shape[1], device=tokens.device),
            # The prompt's own is needed again for the next reply.
            past_key_values=copy.deepcopy(cache),
            use_cache=True,
        )
        logits = torch.cat([first, later.logits[:, :-1]], dim=1)
    logits = logits.float()
    chosen = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0] * is_token
    greedy = (logits.argmax(-1) == tokens) | (is_token == 0)
    found = zip(chosen.sum(1).tolist(), is_token.sum(1).tolist(), greedy.all(1).tolist(), strict=True)
    return [ReplyScore(*score) for score in found]


@torch.inference_mode()
def exchange_logits(
    chat_model: ChatModel,
    prompts: Sequence[str],
    replies: Sequence[str],
    *,
    batch_size: int,
    batched_for: ChatModel | None = None,
) -> Iterator[torch.Tensor]:
    """Yield, batch by batch, the logits (tokens, vocabulary) that predict the replies' tokens and their ends.

    The order of batches and rows depends on the lengths and on the device of `batched_for`, by default the model
    itself: with one and the same, two models' logits can be compared wherever they are.
    """
    sequences, tails = encode_with_replies(chat_model.tokenizer, prompts, replies)
    order, lengths, done = by_length(sequences), read_lengths(batched_for or chat_model, sequences), 0
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
