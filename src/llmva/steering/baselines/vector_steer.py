"""VectorSteer: add a multiple of an answered-minus-refused direction to the residual stream."""

from contextlib import AbstractContextManager

import numpy
import torch

from llmva.core.provenance import random_generator
from llmva.models.chat_model import ChatModel
from llmva.steering.base import TrainingData
from llmva.steering.residual import Change, ResidualMethod, add_where, changed_residuals
from llmva.steering.search import in_turn

MEAN_DIFFERENCE, READING_VECTOR = VARIANTS = ("mean difference", "reading vector")


class VectorSteer(ResidualMethod):
    """Steering by one vector per block, in two variants.

    `mean difference` adds the difference of means at block inputs, at the prompt's positions. `reading vector`
    is representation engineering (RepE, Zou et al. 2023): the first principal component of differences of pairs,
    added to block outputs at all positions, of the prompt and of what is generated. Both are computed from the
    last prompt token's residual.

    A strength of 1 adds a vector as long as the mean residual at that site, so that strengths carry over
    between blocks and families. Positive strengths push towards answering; both signs are tried.

    Attributes
    ----------
    steps : dict of str to dict of int to ndarray
        By variant and site: the vector that strength 1 adds, (d,) float32.
    """

    name = "VectorSteer"
    version = 2
    reads = "residuals at the last prompt token"
    acts = "block inputs at the prompt, or outputs everywhere"
    variants = VARIANTS
    spans = {"all": (0.0, 1.0), "early": (0.0, 0.5), "middle": (0.25, 0.75), "late": (0.5, 1.0)}
    weakest, strongest = 0.02, 1.5

    def _fit(self, training: TrainingData) -> None:
        labels = training.answered
        pairs = draw_pairs(labels, training.seed)
        self.steps = {
            MEAN_DIFFERENCE: {site: relative_difference(rows, labels) for site, rows in training.residuals.items()},
            READING_VECTOR: {site: relative_reading(rows, *pairs) for site, rows in training.residuals.items()},
        }

    def _cells(self, variant: str) -> list[dict]:
        return in_turn(self._span_cells(), [{"sign": 1}, {"sign": -1}])

    def _steered(self, chat_model: ChatModel, setting: dict) -> AbstractContextManager:
        reading = setting["variant"] == READING_VECTOR
        changes = {}
        for block in self._blocks(setting):
            site = block + reading  # The output of a block is the next site.
            step = torch.from_numpy(setting["strength"] * self.steps[setting["variant"]][site])
            changes[site] = _adding(step, generated=reading)
        return changed_residuals(chat_model, changes)


def relative_difference(features: numpy.ndarray, labels: numpy.ndarray) -> numpy.ndarray:
    """Return the unit mean difference of rows labelled +1 and -1, times the rows' mean norm.

    Zeros when the means do not differ: every prompt ends in the same token, so at the first block's
    input all rows are equal.

    Parameters
    ----------
    features : ndarray, shape (n, d)
    labels : ndarray of int, shape (n,)
        +1, -1, or 0 for rows left out.
    """
    rows = features.astype(numpy.float64)
    difference = rows[labels == 1].mean(0) - rows[labels == -1].mean(0)
    length, mean_norm = numpy.linalg.norm(difference), numpy.linalg.norm(rows, axis=1).mean()
    if length <= numpy.finfo(numpy.float32).eps * mean_norm:
        return numpy.zeros(rows.shape[1], dtype=numpy.float32)
    return (difference * (mean_norm / length)).astype(numpy.float32)


def relative_reading(
    features: numpy.ndarray, answered: numpy.ndarray, refused: numpy.ndarray, flips: numpy.ndarray
) -> numpy.ndarray:
    """Return the reading vector of RepE, of unit length, times the rows' mean norm.

    The first principal component of the pairs' differences, which points to where the answered member of
    more pairs has the larger projection; on a tie it is left as it comes. Zeros when no pair differs, or all
    alike.

    Parameters
    ----------
    features : ndarray, shape (n, d)
    answered, refused : ndarray of int, shape (pairs,)
        The rows of each pair's members.
    flips : ndarray of int, shape (pairs,)
        +1 for answered minus refused, -1 for refused minus answered.
    """
    rows = features.astype(numpy.float64)
    differences = rows[answered] - rows[refused]
    # Without the flips, subtracting the mean would delete the very direction that is looked for.
    flipped = differences * flips[:, None]
    _, sizes, directions = numpy.linalg.svd(flipped - flipped.mean(0), full_matrices=False)
    mean_norm = numpy.linalg.norm(rows, axis=1).mean()
    if sizes[0] <= numpy.finfo(numpy.float32).eps * mean_norm * len(rows) ** 0.5:
        return numpy.zeros(rows.shape[1], dtype=numpy.float32)
    larger = numpy.sign(differences @ directions[0]).sum()
    return ((-1 if larger < 0 else 1) * mean_norm * directions[0]).astype(numpy.float32)


def draw_pairs(labels: numpy.ndarray, seed: int) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Draw pairs of an answered (+1) and a refused (-1) row, and the order within each pair.

    Every row of both classes is in a pair; the smaller class is gone through several times.

    Returns
    -------
    answered, refused, flips : ndarray of int, shape (pairs,)
        As `relative_reading` takes them.
    """
    generator = random_generator(seed, "reading vector", "pairs")
    answered, refused = (generator.permutation(numpy.flatnonzero(labels == sign)) for sign in (1, -1))
    count = max(len(answered), len(refused))
    return numpy.resize(answered, count), numpy.resize(refused, count), generator.choice([1, -1], count)


def _adding(step: torch.Tensor, *, generated: bool) -> Change:
    return lambda hidden, now: add_where(hidden, now.prompt | now.generated if generated else now.prompt, step)
