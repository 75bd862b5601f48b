"""SCANS: push prompts taken for unsafe towards refusing and all others towards answering, by a classifier of states."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy
import torch

from llmva.models.activations import Capture, recording
from llmva.models.chat_model import ChatModel
from llmva.models.reading import read_exchange_activations
from llmva.steering.base import TrainingData, residuals_of
from llmva.steering.baselines.vector_steer import relative_difference
from llmva.steering.residual import Change, Pass, add_where, changed_residuals
from llmva.steering.search import alternating, blocks_of, distinct_spans, unsteered

# Shares of the depth that are steered, at block outputs. Published are blocks 10 to 19 of 32.
SPANS = {"published": (10 / 32, 20 / 32), "late": (0.5, 1.0), "all": (0.0, 1.0)}
# Beside the threshold that separates the training rows best, those that call so many more or fewer of them unsafe.
AROUND = (-0.1, 0.1)
# A step at every generated token adds up: steps as long as the residual break the language.
WEAKEST, STRONGEST = 0.05, 0.8
WORD = "Sure"


class Scans:
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
    finetunes = False
    hooks = True

    def __init__(self) -> None:
        self.steps: dict[int, numpy.ndarray] = {}
        self.references: dict[int, numpy.ndarray] = {}
        self.cosines: dict[int, numpy.ndarray] = {}
        self.toxic = numpy.zeros(0, dtype=bool)
        self.outcome = "not fitted"

    def fit(self, training: TrainingData) -> None:
        """Compute steps, references and the training rows' cosines.

        Training prompts of one label, or residuals that are not finite, fit nothing; the outcome says so.
        """
        self.toxic = training.benign == -1
        self.outcome = _shortcoming(training) or "fitted"
        if self.outcome != "fitted":
            return
        transitions = _training_transitions(training)
        for site in range(1, len(training.residuals)):
            self.steps[site] = relative_difference(training.residuals[site], -training.benign)
            self.references[site] = transitions[site][self.toxic].mean(0)
            self.cosines[site] = cosines(transitions[site], self.references[site])

    def search_space(self, trials: int) -> list[dict]:
        """Return the unsteered model, then strengths along which spans and their thresholds take turns."""
        if self.outcome != "fitted":
            return unsteered()
        spans = distinct_spans(SPANS, len(self.steps))
        thresholds = {span: find_thresholds(self._scores(blocks.start), self.toxic) for span, blocks in spans.items()}
        # Neighbours differ in both: a span's thresholds are as far apart as the spans are many.
        cells = [
            {"span": span, "threshold": found[(row + column) % len(found)]}
            for row in range(max(map(len, thresholds.values())))
            for column, (span, found) in enumerate(thresholds.items())
        ]
        return alternating(cells, trials, strongest=STRONGEST, weakest=WEAKEST)

    @contextmanager
    def applied(self, chat_model: ChatModel, setting: dict) -> Iterator[None]:
        """Hook the model and the span's block outputs; the hooks come off when the block ends."""
        if not setting["strength"]:
            yield
            return
        blocks = blocks_of(SPANS[setting["span"]], len(self.steps))
        references = {site: self.references[site] for site in self._scored(blocks.start)}
        classifier = _Classifier(chat_model, references, setting["threshold"])
        changes = {
            block + 1: _pushing(torch.from_numpy(setting["strength"] * self.steps[block + 1]), classifier)
            for block in blocks
        }
        with changed_residuals(chat_model, changes, before=classifier.decide):
            yield

    def _scored(self, first: int) -> range:
        return range(first + 1, len(self.steps) + 1)

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
    mask = torch.ones_like(tokens) if attention_mask is None else attention_mask
    # The steered model keeps its own cache: this pass must neither use nor fill it.
    tokens = torch.cat([tokens, tokens.new_full((len(tokens), 1), _agreement(chat_model)[0])], dim=1)
    mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    marks = torch.zeros_like(mask)
    marks[:, -2:] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    capture = Capture(outputs=False, blocks=True, positions="all")
    with torch.no_grad(), recording(chat_model, capture) as recorder:
        recorder.start(list(range(len(tokens))), marks)
        chat_model.model(
            input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=1
        )
    return {site: rows[0::2] - rows[1::2] for site, rows in residuals_of(recorder.collected()).items()}


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
    ordered = numpy.unique(scores.astype(numpy.float64))
    candidates = (ordered[1:] + ordered[:-1]) / 2 if len(ordered) > 1 else ordered
    unsafe = scores >= candidates[:, None]
    accuracy = unsafe[:, toxic].mean(1) + (~unsafe[:, ~toxic]).mean(1)
    winners = numpy.flatnonzero(accuracy >= accuracy.max() - 1e-9)
    best = candidates[winners[len(winners) // 2]]
    quantiles = numpy.clip((scores < best).mean() + numpy.array(AROUND), 0, 1)
    return list(dict.fromkeys([float(best), *numpy.quantile(scores, quantiles).tolist()]))


class _Classifier:
    """Decides once per batch of prompts which way each is pushed: +1 unsafe, -1 safe."""

    def __init__(self, chat_model: ChatModel, references: Mapping[int, numpy.ndarray], threshold: float) -> None:
        self.chat_model = chat_model
        self.references = references
        self.threshold = threshold
        self.signs = torch.zeros(0)

    def decide(self, now: Pass, options: dict) -> None:
        tokens = options["input_ids"]
        # A pass that decodes, from the cache or over the whole text again, keeps its prompt's decision.
        if now.last != tokens.shape[1] - 1:
            return
        transitions = read_transitions(self.chat_model, tokens, options.get("attention_mask"))
        by_site = [cosines(transitions[site], reference) for site, reference in self.references.items()]
        self.signs = torch.from_numpy(numpy.where(numpy.mean(by_site, axis=0) >= self.threshold, 1.0, -1.0))


def _pushing(step: torch.Tensor, classifier: _Classifier) -> Change:
    def change(hidden: torch.Tensor, now: Pass) -> torch.Tensor:
        where = now.generated.clone()
        if now.last is not None:
            where[:, now.last] |= now.prompt[:, now.last]
        return add_where(hidden, where, classifier.signs.to(hidden)[:, None] * step.to(hidden))

    return change


def _training_transitions(training: TrainingData) -> dict[int, numpy.ndarray]:
    """As `read_transitions`, (n, d) by site, of all training rows."""
    prompts, length = training.rows["prompt"].tolist(), len(_agreement(training.chat_model))
    after = read_exchange_activations(
        training.chat_model,
        prompts,
        [WORD] * len(prompts),
        capture=Capture(outputs=False, blocks=True, positions="all"),
        batch_size=training.batch_size,
        tokens="reply",
    )
    # Nothing that follows changes a state, so the last prompt token's is the one that training already holds.
    return {site: training.residuals[site] - rows[::length] for site, rows in residuals_of(after).items()}


def _agreement(chat_model: ChatModel) -> list[int]:
    """Return the word's tokens, of which the first is used."""
    return chat_model.tokenizer(WORD, add_special_tokens=False)["input_ids"]


def _shortcoming(training: TrainingData) -> str:
    if not {1, -1} <= set(training.benign):
        return "one class"
    finite = all(numpy.isfinite(rows).all() for rows in training.residuals.values())
    return "" if finite else "non-finite residuals"
