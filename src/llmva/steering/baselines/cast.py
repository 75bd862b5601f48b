"""CAST: steer only the prompts whose state meets a condition (conditional activation steering)."""

from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product

import numpy
import torch

from llmva.core.provenance import random_generator
from llmva.models.chat_model import ChatModel
from llmva.steering.base import TrainingData, one_class
from llmva.steering.residual import STRENGTHS_AT_EVERY_TOKEN, Change, Pass, ResidualMethod, add_where, changed_residuals
from llmva.steering.search import best_threshold, in_turn

# Published are conditions in the first third. A late one would miss the prefill of most blocks.
DEEPEST_CONDITION = 0.5
CONDITIONS = 2
MAX_PROMPTS, MAX_OPENINGS, OPENING_WORDS = 64, 4, 3


class Cast(ResidualMethod):
    """A step along refusing minus answering for the prompts that meet a condition, and no change for others.

    The condition is read once, at one block's input during the prefill, from the mean over the prompt's
    tokens. Where it fires, the step is added at all prompt positions of the span's blocks from that block on
    (for earlier ones the prefill has passed, as published) and at every generated position of all of them.
    Positive strengths push towards refusing and go with conditions that find toxic prompts; negative ones push
    towards answering and go with conditions that find benign ones. Published is the first alone.

    Attributes
    ----------
    condition_vectors, steps : dict of int to (d,) array
        By site: c, of unit length, and the unit behaviour vector times the mean norm of residuals.
    conditions : dict of int to list of dict
        By the sign of the strengths they go with: the best conditions, with their F1 on the training rows.
    """

    name = "CAST"
    version = 2
    reads = "block inputs, means over prompts and openings"
    acts = "block inputs at all tokens, on a condition"
    # Published are blocks 15 to 23 of 32.
    spans = {"published": (15 / 32, 24 / 32), "late": (0.5, 1.0), "all": (0.0, 1.0)}
    weakest, strongest = STRENGTHS_AT_EVERY_TOKEN

    def _shortcoming(self, training: TrainingData) -> str | None:
        if one_class(training.benign) or one_class(training.answered):
            return "one class"
        if not all(frequent_openings(training)):
            return "refusals open like answers"
        return None if training.is_finite else "non-finite residuals"

    def _fit(self, training: TrainingData) -> str | None:
        means = training.read(training.rows["prompt"].tolist(), positions="mean")
        self.condition_vectors = _condition_vectors(means, training)
        if not self.condition_vectors:
            return "no condition"
        similarities = {site: _similarities(means[site], vector) for site, vector in self.condition_vectors.items()}
        self.conditions, self.steps = {}, {}
        for sign in (1, -1):
            self.conditions[sign] = _best_conditions(similarities, training.benign == -sign, self.depth)
        for site, differences in _contrasts(training).items():
            mean_norm = numpy.linalg.norm(training.residuals[site], axis=1).mean()
            self.steps[site] = (mean_norm * oriented_component(differences)).astype(numpy.float32)
        return None

    def _cells(self, variant: str) -> list[dict]:
        tried = ("condition_site", "threshold", "fires_when")
        signed = [
            {**{key: condition[key] for key in tried}, "sign": sign}
            for sign, conditions in self.conditions.items()
            for condition in conditions
        ]
        return in_turn(self._span_cells(), signed)

    def _steered(self, chat_model: ChatModel, setting: dict) -> AbstractContextManager:
        origin = round(setting["condition_site"] * self.depth)
        vector = torch.from_numpy(self.condition_vectors[origin])
        condition = _Condition(vector, setting["threshold"], setting["fires_when"])
        span = self._blocks(setting)
        steps = {site: torch.from_numpy(setting["strength"] * self.steps[site]) for site in span}
        changes = {
            site: _changing(condition, steps.get(site), decides=site == origin, prompts=site >= origin)
            for site in {origin, *span}
        }
        return changed_residuals(chat_model, changes)


def condition_similarity(states: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Return cos(h, tanh(c c^T h / c^T c)) of each row (CAST, similarity of the condition).

    It does not depend on the sign or length of c, and is 0 where h has no component along c.

    Parameters
    ----------
    states : tensor, shape (n, d)
        h, in float32.
    vector : tensor, shape (d,)
        c.
    """
    vector = vector.to(states)
    squashed = torch.tanh((states @ vector / (vector @ vector))[:, None] * vector)
    return torch.nn.functional.cosine_similarity(states, squashed, dim=1)


def oriented_component(differences: numpy.ndarray) -> numpy.ndarray:
    """Return the first principal component of differences, uncentred, along which most of them are positive.

    Parameters
    ----------
    differences : ndarray, shape (n, d)
        Half the difference of each pair, which is what is left of it without its midpoint.

    Returns
    -------
    ndarray of float64, shape (d,)
        Of unit length; zeros where there are no differences.
    """
    rows = differences.astype(numpy.float64)
    if not rows.any():
        return numpy.zeros(rows.shape[1])
    component = numpy.linalg.svd(rows, full_matrices=False)[2][0]
    return -component if numpy.sign(rows @ component).sum() < 0 else component


def best_condition(similarities: numpy.ndarray, wanted: numpy.ndarray) -> dict:
    """Return the threshold and the side of it that find the wanted rows with the highest F1.

    Parameters
    ----------
    similarities : ndarray, shape (n,)
    wanted : ndarray of bool, shape (n,)

    Returns
    -------
    dict
        threshold, fires_when and f1; the threshold lies half-way between two neighbouring rows.
    """
    sides = {
        "below": best_threshold(similarities, lambda below: _f1(below, wanted)),
        "above": best_threshold(similarities, lambda below: _f1(~below, wanted)),
    }
    fires_when, (threshold, f1) = max(sides.items(), key=lambda side: side[1][1])
    return {"threshold": threshold, "fires_when": fires_when, "f1": f1}


def frequent_openings(training: TrainingData) -> tuple[list[str], list[str]]:
    """Return the first words that refusals, and those that answers, begin with most often.

    An opening belongs to the side where it occurs more often. Published are fixed lists of suffixes; the
    model's own openings fit any model.
    """
    counts = {1: Counter(), -1: Counter()}
    for reply, label in zip(training.rows["response"], training.answered, strict=True):
        opening = " ".join(reply.split()[:OPENING_WORDS])
        if opening and label:
            counts[label][opening] += 1
    sides = counts[-1] - counts[1], counts[1] - counts[-1]
    refusing, answering = ([opening for opening, _ in side.most_common(MAX_OPENINGS)] for side in sides)
    return refusing, answering


@dataclass
class _Condition:
    """Decides once per batch of prompts in which rows the condition is met."""

    vector: torch.Tensor
    threshold: float
    # The released code's comparator "larger" asks whether the threshold is larger: it is "below" here.
    fires_when: str
    fires: torch.Tensor = torch.zeros(0, dtype=torch.bool)

    def decide(self, hidden: torch.Tensor, prompt: torch.Tensor) -> None:
        marks = prompt.to(hidden.device)[..., None].float()
        mean = (hidden.float() * marks).sum(1) / marks.sum(1).clamp(min=1)
        below = condition_similarity(mean, self.vector) < self.threshold
        self.fires = below if self.fires_when == "below" else ~below


def _changing(condition: _Condition, step: torch.Tensor | None, *, decides: bool, prompts: bool) -> Change:
    def change(hidden: torch.Tensor, now: Pass) -> torch.Tensor:
        if now.is_prefill and decides:
            condition.decide(hidden, now.prompt)
        # In a prefill that has not come to the condition yet, the decision is still the last batch's.
        if step is None or (now.is_prefill and not prompts):
            return hidden
        where = now.generated | now.prompt if prompts else now.generated
        return add_where(hidden, where & condition.fires.to(where.device)[now.rows, None], step)

    return change


def _f1(fires: numpy.ndarray, wanted: numpy.ndarray) -> numpy.ndarray:
    return 2 * (fires & wanted).sum(1) / (fires.sum(1) + wanted.sum())


def _condition_vectors(means: dict[int, numpy.ndarray], training: TrainingData) -> dict[int, numpy.ndarray]:
    draw = random_generator(training.seed, "CAST", "pairs")
    toxic, benign = (draw.permutation(numpy.flatnonzero(training.benign == label)) for label in (-1, 1))
    pairs, deepest = min(len(toxic), len(benign)), int(DEEPEST_CONDITION * (len(means) - 1))
    differences = {site: (means[site][toxic[:pairs]] - means[site][benign[:pairs]]) / 2 for site in range(deepest + 1)}
    return {site: oriented_component(rows).astype(numpy.float32) for site, rows in differences.items() if rows.any()}


def _similarities(means: numpy.ndarray, vector: numpy.ndarray) -> numpy.ndarray:
    return condition_similarity(torch.from_numpy(means), torch.from_numpy(vector)).numpy()


def _best_conditions(similarities: dict[int, numpy.ndarray], wanted: numpy.ndarray, depth: int) -> list[dict]:
    """Return the best condition of each of the best sites, the earliest site on a tie."""
    conditions = [
        {"condition_site": round(site / depth, 4), **best_condition(rows, wanted)}
        for site, rows in similarities.items()
    ]
    return sorted(conditions, key=lambda condition: -condition["f1"])[:CONDITIONS]


def _contrasts(training: TrainingData) -> dict[int, numpy.ndarray]:
    """Return half of refusing minus answering, each a mean over the reply's tokens, (pairs, d) by block input."""
    openings = frequent_openings(training)
    prompts = training.rows["prompt"].to_numpy()
    draw = random_generator(training.seed, "CAST", "contrasts")
    drawn = draw.choice(len(prompts), min(MAX_PROMPTS, len(prompts)), replace=False)
    exchanges = list(product(prompts[drawn].tolist(), range(max(map(len, openings)))))
    refusing, answering = (
        training.read(
            [prompt for prompt, _ in exchanges],
            [side[number % len(side)] for _, number in exchanges],
            positions="mean",
        )
        for side in openings
    )
    return {site: (refusing[site] - answering[site]) / 2 for site in range(len(refusing) - 1)}
