"""The direction of a trait in one site's residual stream, and the boundary on it (runtime steering v2, section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy
from sklearn.linear_model import LogisticRegression

from llmva.core.errors import InputError

PENALTY, MAX_ITERATIONS = 1.0, 10_000


@dataclass(frozen=True, eq=False)
class Boundary:
    """Where a trait begins along a direction; rho = h.v is a token's place.

    Attributes
    ----------
    direction : (d,) float32 array
        v, of unit length, towards the trait.
    threshold : float
        m: what has rho < m is on the wrong side.
    positive_mean, positive_deviation, negative_mean, negative_deviation : float
        mu+, sigma+, mu-, sigma- of rho, over responses that show the trait and over those that do not. A response
        counts by its mean over tokens, so that sigma+ is far below that of single tokens.
    """

    direction: numpy.ndarray
    threshold: float
    positive_mean: float
    positive_deviation: float
    negative_mean: float
    negative_deviation: float

    @property
    def gap(self) -> float:
        """Delta mu = mu+ - mu-."""
        return self.positive_mean - self.negative_mean

    def reversed(self) -> "Boundary":
        """Return the boundary of the trait's contrary: the same plane, seen from its other side."""
        return Boundary(
            -self.direction,
            -self.threshold,
            -self.negative_mean,
            self.negative_deviation,
            -self.positive_mean,
            self.positive_deviation,
        )


def fit_boundary(positive: numpy.ndarray, negative: numpy.ndarray) -> Boundary:
    """Find a trait's direction and boundary by logistic regression: v = w / |w|, m = -b / |w|.

    Parameters
    ----------
    positive, negative : ndarray, shape (n, d)
        Activations of responses with the trait and without it, each a mean over the response's tokens.

    Raises
    ------
    InputError
        When both are alike, as where a model gives the same replies on both sides.
    """
    rows = numpy.concatenate([positive, negative]).astype(numpy.float64)
    labels = numpy.repeat([1, -1], [len(positive), len(negative)])
    fitted = LogisticRegression(C=PENALTY, max_iter=MAX_ITERATIONS).fit(rows, labels)
    weights, bias = fitted.coef_[0], float(fitted.intercept_[0])
    length = float(numpy.linalg.norm(weights))
    if not length:
        raise InputError("boundary: both sides have the same activations; write pairs whose replies differ")
    return replace(place_boundary(weights, positive, negative), threshold=-bias / length)


def place_boundary(direction: Sequence[float], positive: numpy.ndarray, negative: numpy.ndarray) -> Boundary:
    """Return the boundary half-way between the means along a direction of any length, turned towards the trait."""
    unit = numpy.asarray(direction, dtype=numpy.float64)
    unit = unit / numpy.linalg.norm(unit)
    if unit @ mean_difference(positive, negative) < 0:
        unit = -unit
    above, below = (rows.astype(numpy.float64) @ unit for rows in (positive, negative))
    statistics = [float(value) for value in (above.mean(), above.std(), below.mean(), below.std())]
    return Boundary(unit.astype(numpy.float32), (statistics[0] + statistics[2]) / 2, *statistics)


def mean_difference(positive: numpy.ndarray, negative: numpy.ndarray) -> numpy.ndarray:
    """Return the difference of the means, (d,): the usual steering vector."""
    return positive.mean(axis=0, dtype=numpy.float64) - negative.mean(axis=0, dtype=numpy.float64)
