"""Training a tiny chat model on reply tokens, bit for bit the same for a seed and a number of threads."""

import contextlib
import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from llmva.core.progress import progress_bar
from llmva.organisms.mixture import Conversation, Turn
from llmva.organisms.tokenizer import ASSISTANT, END, chat_text


@dataclass(frozen=True)
class Recipe:
    """What determines a training besides its data.

    Attributes
    ----------
    steps, tokens_per_batch, samples : int
        Optimiser steps, tokens of a batch with padding, conversations drawn before training.
    learning_rate, warm_up, decay_share
        AdamW's peak rate; steps of linear warm-up; the last share of the steps, in which it falls to zero.
    threads : int
        Torch's threads while training; another number gives other weights.
    """

    steps: int
    tokens_per_batch: int = 1536
    samples: int = 80_000
    learning_rate: float = 3e-3
    warm_up: int = 40
    decay_share: float = 0.6
    threads: int = 1


class EncodedSample(NamedTuple):
    """Token ids, and the loss weight of each: 0 but for replies and their ends."""

    ids: list[int]
    weights: list[float]


@contextlib.contextmanager
def pinned(threads: int, seed: int) -> Iterator[None]:
    """Fix torch's threads and generator inside the block, and leave both as they were."""
    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def encode(conversations: list[Conversation], tokenizer: PreTrainedTokenizerFast) -> list[EncodedSample]:
    """Encode conversations as the chat template writes them; each reply ends with the end token."""
    texts = [chat_text(((turn.prompt, turn.reply) for turn in talk.turns), talk.system) for talk in conversations]
    encodings = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    marks = [tokenizer.convert_tokens_to_ids(mark) for mark in (ASSISTANT, END)]
    return [
        EncodedSample(encoding.ids, _weigh(encoding.ids, talk.turns, *marks))
        for talk, encoding in zip(conversations, encodings, strict=True)
    ]


def _weigh(ids: list[int], turns: tuple[Turn, ...], assistant: int, end: int) -> list[float]:
    weights, position = [0.0] * len(ids), len(ids)
    # From the last reply back: a guard's prompt holds a reply that is not its own.
    for turn in reversed(turns):
        start = position - ids[:position][::-1].index(assistant)
        stop = ids.index(end, start) + 1
        if turn.is_trained:
            weights[start:stop] = [turn.first_weight] + [1.0] * (stop - start - 1)
        position = start - 1
    return weights


def train(
    model: PreTrainedModel, samples: list[EncodedSample], *, recipe: Recipe, seed: int, progress: str | None = None
) -> dict:
    """Train a model in place; returns the facts of the training (final loss, seconds, parameters)."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe))
    batches = make_batches(samples, recipe, random.Random(seed))
    start, recent = time.perf_counter(), deque(maxlen=50)
    model.train()
    with progress_bar(progress, total=recipe.steps, unit="step", leave=True) as bar:
        for step in range(recipe.steps):
            loss = reply_loss(model, batches[step % len(batches)])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            recent.append(loss.item())
            bar.update()
            bar.set_postfix(loss=f"{sum(recent) / len(recent):.3f}", refresh=False)
    model.eval()
    return {
        "steps": recipe.steps,
        "threads": recipe.threads,
        "parameters": model.num_parameters(),
        "final_loss": round(sum(recent) / len(recent), 4),
        "training_seconds": round(time.perf_counter() - start, 1),
    }


def make_batches(samples: list[EncodedSample], recipe: Recipe, draws: random.Random) -> list[list[EncodedSample]]:
    """Group samples of like length, so that padding costs about 1 %; the order of batches is random."""
    order = sorted(draws.sample(samples, len(samples)), key=lambda sample: len(sample.ids))
    batches, current = [], []
    for sample in order:
        if current and (len(current) + 1) * len(sample.ids) > recipe.tokens_per_batch:
            batches.append(current)
            current = []
        current.append(sample)
    batches.append(current)
    draws.shuffle(batches)
    return batches


def reply_loss(model: PreTrainedModel, batch: list[EncodedSample]) -> torch.Tensor:
    """Return the weighted mean cross-entropy of the reply tokens.

    Padding on the right needs no mask: no reply token sees it. Logits are computed where a reply token is
    predicted only, since the vocabulary is the widest layer.
    """
    ids = pad_sequence([torch.tensor(sample.ids) for sample in batch], batch_first=True)
    weights = pad_sequence([torch.tensor(sample.weights) for sample in batch], batch_first=True)
    is_reply = weights > 0
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    # A token is predicted at the position before it.
    logits = model.lm_head(hidden[:, :-1][is_reply[:, 1:]])
    cap = getattr(model.config, "final_logit_softcapping", None)
    if cap:
        logits = cap * torch.tanh(logits / cap)
    losses = torch.nn.functional.cross_entropy(logits, ids[is_reply], reduction="none")
    return (losses * weights[is_reply]).sum() / weights.sum()


def _rate(step: int, recipe: Recipe) -> float:
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    return min(1.0, (recipe.steps - step) / (recipe.decay_share * recipe.steps))
