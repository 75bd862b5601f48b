"""VectorSteer: add a multiple of an answered-minus-refused direction to the residual stream."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch

from llmva.core.provenance import random_generator
from llmva.models.chat_model import ChatModel
from llmva.steering.base import TrainingData
from llmva.steering.residual import Change, add_where, changed_residuals
from llmva.steering.search import alternating_variants, blocks_of, distinct_spans, in_turn, unsteered

MEAN_DIFFERENCE, READING_VECTOR = VARIANTS = ("mean difference", "reading vector")
# Shares of the depth that are steered; real models differ too much in depth for block numbers.
SPANS = {"all": (0.0, 1.0), "early": (0.0, 0.5), "middle": (0.25, 0.75), "late": (0.5, 1.0)}
WEAKEST, STRONGEST = 0.02, 1.5


class VectorSteer:
    """Steering by one vector per block, in two variants.

    `mean difference` adds the difference of means at block inputs, at the prompt's positions. `reading vector`
    is representation engineering (RepE, Zou et al. 2023): the first principal component of differences of pairs,
    added to block outputs at all positions, of the prompt and of what is generated.

    A strength of 1 adds a vector as long as the mean residual at that site, so that strengths carry over
    between blocks and families. Positive strengths push towards answering.

    Attributes
    ----------
    steps : dict of str to dict of int to ndarray
        By variant and site: the vector that strength 1 adds, (d,) float32.
    depth : int
        Number of blocks.
    outcome : str
        `fitted`, or why there is nothing to steer with.
    """

    name = "VectorSteer"
    version = 2
    finetunes = False
    hooks = True

    def __init__(self) -> None:
        self.steps: dict[str, dict[int, numpy.ndarray]] = {}
        self.depth = 0
        self.outcome = "not fitted"

    def fit(self, training: TrainingData) -> None:
        """Compute both variants' vectors from the last prompt token's residual at every site.

        Verdicts of one class give no vector; the outcome says so, and the search space is then the
        unsteered model alone.
        """
        labels = training.answered
        self.outcome = "fitted" if {1, -1} <= set(labels.tolist()) else "one class"
        if self.outcome != "fitted":
            return
        pairs = draw_pairs(labels, training.seed)
        self.depth = len(training.residuals) - 1
        self.steps = {
            MEAN_DIFFERENCE: {site: relative_difference(rows, labels) for site, rows in training.residuals.items()},
            READING_VECTOR: {site: relative_reading(rows, *pairs) for site, rows in training.residuals.items()},
        }

    def search_space(self, trials: int) -> list[dict]:
        """Return for each variant the unsteered model, then strengths along which signs and spans take turns.

        The variants share the trials.
        """
        if self.outcome != "fitted":
            return unsteered(VARIANTS)
        spans = [{"span": span} for span in distinct_spans(SPANS, self.depth)]
        cells = in_turn(spans, [{"sign": 1}, {"sign": -1}])
        return alternating_variants(dict.fromkeys(VARIANTS, cells), trials, strongest=STRONGEST, weakest=WEAKEST)

    @contextmanager
    def applied(self, chat_model: ChatModel, setting: dict) -> Iterator[None]:
        """Hook the span's blocks; the hooks come off when the block ends."""
        reading = setting["variant"] == READING_VECTOR
        blocks = blocks_of(SPANS[setting["span"]], len(chat_model.blocks)) if setting["strength"] else ()
        # The output of a block is the next site.
        steps = {
            block + reading: setting["strength"] * self.steps[setting["variant"]][block + reading] for block in blocks
        }
        changes = {site: _adding(torch.from_numpy(step), generated=reading) for site, step in steps.items()}
        with changed_residuals(chat_model, changes):
            yield


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
