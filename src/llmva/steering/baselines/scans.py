"""SCANS: push prompts taken for unsafe towards refusing and all others towards answering, by a classifier of states."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import numpy
import torch

from llmva.models.activations import Capture, recording
from llmva.models.batches import forward
from llmva.models.chat_model import ChatModel, encode_texts
from llmva.steering.base import TrainingData, one_class, residuals_of
from llmva.steering.baselines.vector_steer import relative_difference
from llmva.steering.residual import STRENGTHS_AT_EVERY_TOKEN, Change, Pass, ResidualMethod, add_where, changed_residuals
from llmva.steering.search import best_threshold, distinct_spans

# Beside the threshold that separates the training rows best, those that call so many more or fewer of them unsafe.
AROUND = (-0.1, 0.1)
WORD = "Sure"


class Scans(ResidualMethod):
    """A step along toxic minus benign, forwards for prompts classified as unsafe, backwards for the others.

    The classifier reads the transition, the state at the last prompt token minus the state at a token of
    agreement put after it, and compares it with that of toxic prompts (SCANS, classifier of hidden state
    transitions). Its sites go from the span's first block to the last block, as published. It costs one more
    forward pass per prompt. Steered are the last prompt token and all generated ones, at block outputs.

    Attributes
    ----------
    steps, references : dict of int to (d,) array
        By site: the unit difference times the mean norm of residuals, and the toxic rows' mean transition.
    cosines : dict of int to (n,) array
        By site: the cosine of each training row's transition with the reference.
    toxic : (n,) bool array
        Which training rows are toxic.
    """

    name = "SCANS"
    version = 2
    reads = "residuals at the last prompt token and one after"
    acts = "block outputs at the last prompt token and later"
    # Published are blocks 10 to 19 of 32.
    spans = {"published": (10 / 32, 20 / 32), "late": (0.5, 1.0), "all": (0.0, 1.0)}
    weakest, strongest = STRENGTHS_AT_EVERY_TOKEN

    def _shortcoming(self, training: TrainingData) -> str | None:
        if one_class(training.benign):
            return "one class"
        return None if training.is_finite else "non-finite residuals"

    def _fit(self, training: TrainingData) -> None:
        self.toxic, self._cosines_of = training.benign == -1, {}
        self.steps, self.references, self.cosines = {}, {}, {}
        for site, transitions in _training_transitions(training).items():
            if site > 0:
                self.steps[site] = relative_difference(training.residuals[site], -training.benign)
                self.references[site] = transitions[self.toxic].mean(0)
                self.cosines[site] = cosines(transitions, self.references[site])

    def _cells(self, variant: str) -> list[dict]:
        spans = distinct_spans(self.spans, self.depth)
        thresholds = {span: find_thresholds(self._scores(blocks.start), self.toxic) for span, blocks in spans.items()}
        # Neighbours differ in both: a span's thresholds are as far apart as the spans are many.
        return [
            {"span": span, "threshold": choices[(row + column) % len(choices)]}
            for row in range(max(map(len, thresholds.values())))
            for column, (span, choices) in enumerate(thresholds.items())
        ]

    def _steered(self, chat_model: ChatModel, setting: dict) -> AbstractContextManager:
        blocks = self._blocks(setting)
        reader = partial(self._read_cosines, chat_model)
        classifier = _Classifier(reader, self._scored(blocks.start), setting["threshold"])
        # The output of a block is the next site.
        steps = {block + 1: torch.from_numpy(setting["strength"] * self.steps[block + 1]) for block in blocks}
        changes = {site: _pushing(step, classifier) for site, step in steps.items()}
        return changed_residuals(chat_model, changes, before=classifier.decide)

    def _read_cosines(self, chat_model: ChatModel, tokens: torch.Tensor, mask: torch.Tensor | None) -> numpy.ndarray:
        """Return the cosine of each prompt's transition with the reference at every site, (batch, depth).

        It is the unsteered model's, so that a prompt is read once for all settings.
        """
        real = [row[keep].tolist() for row, keep in zip(tokens, _mask(tokens, mask).bool(), strict=True)]
        keys = [(chat_model.source, *row) for row in real]
        if any(key not in self._cosines_of for key in keys):
            transitions = read_transitions(chat_model, tokens, mask)
            read = [cosines(transitions[site], self.references[site]) for site in self.references]
            self._cosines_of |= zip(keys, numpy.stack(read, axis=1), strict=True)
        return numpy.stack([self._cosines_of[key] for key in keys])

    def _scored(self, first: int) -> range:
        return range(first + 1, self.depth + 1)

    def _scores(self, first: int) -> numpy.ndarray:
        return numpy.mean([self.cosines[site] for site in self._scored(first)], axis=0)


def read_transitions(
    chat_model: ChatModel, tokens: torch.Tensor, attention_mask: torch.Tensor | None
) -> dict[int, numpy.ndarray]:
    """Return how the residual stream changes from the last prompt token to a token of agreement after it.

    Parameters
    ----------
    tokens, attention_mask : (batch, positions) tensors
        Templated prompts with their generation prompt, padded on the left.

    Returns
    -------
    dict of int to (batch, d) float32 array
        By site: the state at the last prompt token minus the state at the token after it.
    """
    mask = _mask(tokens, attention_mask)
    # The steered model keeps its own cache: this pass must neither use nor fill it.
    tokens = torch.cat([tokens, tokens.new_full((len(tokens), 1), _agreement(chat_model)[0])], dim=1)
    mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    marks = torch.zeros_like(mask)
    marks[:, -2:] = 1
    capture = Capture(outputs=False, blocks=True, positions="all")
    with torch.no_grad(), recording(chat_model, capture) as recorder:
        recorder.start(list(range(len(tokens))), marks)
        forward(chat_model, {"input_ids": tokens, "attention_mask": mask})
    return {site: rows[0::2] - rows[1::2] for site, rows in residuals_of(recorder.collected()).items()}


def _mask(tokens: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    return torch.ones_like(tokens) if attention_mask is None else attention_mask


def cosines(rows: numpy.ndarray, reference: numpy.ndarray) -> numpy.ndarray:
    """Return the cosine of each row, (n, d), with the reference, (d,); 0 where either is zero."""
    lengths = numpy.linalg.norm(rows, axis=1) * numpy.linalg.norm(reference)
    return (rows @ reference) / numpy.maximum(lengths, numpy.finfo(numpy.float32).tiny)


def find_thresholds(scores: numpy.ndarray, toxic: numpy.ndarray) -> list[float]:
    """Return the threshold with the highest balanced accuracy, then quantiles of the scores around it.

    Parameters
    ----------
    scores : ndarray, shape (n,)
        Of training rows; a row at or above the threshold is called unsafe.
    toxic : ndarray of bool, shape (n,)
    """
    best, _ = best_threshold(scores, lambda below: below[:, ~toxic].mean(1) + (~below[:, toxic]).mean(1))
    quantiles = numpy.clip((scores < best).mean() + numpy.array(AROUND), 0, 1)
    return list(dict.fromkeys([best, *numpy.quantile(scores, quantiles).tolist()]))


@dataclass
class _Classifier:
    """Decides once per batch of prompts which way each is pushed: +1 unsafe, -1 safe."""

    read_cosines: Callable[[torch.Tensor, torch.Tensor | None], numpy.ndarray]
    scored: range
    threshold: float
    signs: torch.Tensor = torch.zeros(0)

    def decide(self, now: Pass, options: dict) -> None:
        if not now.is_prefill:
            return
        by_site = self.read_cosines(options["input_ids"], options.get("attention_mask"))
        # Sites are counted from 1.
        score = by_site[:, self.scored.start - 1 : self.scored.stop - 1].mean(1)
        self.signs = torch.from_numpy(numpy.where(score >= self.threshold, 1.0, -1.0))


def _pushing(step: torch.Tensor, classifier: _Classifier) -> Change:
    def change(hidden: torch.Tensor, now: Pass) -> torch.Tensor:
        where = now.generated.clone()
        if now.last is not None:
            where[:, now.last] |= now.prompt[:, now.last]
        return add_where(hidden, where, classifier.signs.to(hidden)[now.rows, None] * step.to(hidden))

    return change


def _training_transitions(training: TrainingData) -> dict[int, numpy.ndarray]:
    """As `read_transitions`, (n, d) by site, of all training rows."""
    prompts, length = training.rows["prompt"].tolist(), len(_agreement(training.chat_model))
    after = training.read(prompts, [WORD] * len(prompts), positions="all")
    # Nothing that follows changes a state, so the last prompt token's is the one that training already holds.
    return {site: rows - after[site][::length] for site, rows in training.residuals.items()}


def _agreement(chat_model: ChatModel) -> list[int]:
    """Return the word's tokens, of which the first is used."""
    return encode_texts(chat_model.tokenizer, [WORD])[0]
