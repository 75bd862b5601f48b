"""The exact solver of the squared-hinge SVM.

Sublayer outputs are ill-conditioned: their mean is many times their deviation, and a few dimensions
are massive. Coordinate descent then stops far from the optimum.

For a fixed set of active rows, those inside the margin, the objective is a quadratic. Newton's step
goes to its minimum, whose own active rows make the next set; a set that reproduces itself is the optimum.
That takes two to ten rounds, or runs in a circle, mostly near a hard margin. Then smaller penalties
come first, spaced evenly on the logarithmic scale, and the active rows of each are the start for the next.
Below `_harmless_penalty` all rows are active, so there is always something to start from.
"""

import numpy
import scipy.linalg

TOLERANCE = 1e-10
MAX_ROUNDS = 500
# Rounds without fewer wrong rows than ever before, until smaller penalties come first.
PATIENCE = 3
PENALTY_RATIO = 30.0


def solve_newton(
    features: numpy.ndarray, labels: numpy.ndarray, penalty: float
) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Minimise Eq. 2 for each column of labels, in the smaller of sample and feature space.

    Parameters
    ----------
    features : (n, d) float64 array
        Finite.
    labels : (n, k) float64 array
        -1 and +1, both in every column; 0 leaves a row out.
    penalty : float
        C.

    Returns
    -------
    weights : (k, d) float64 array
    converged : (k,) bool array
        True where the rows that pull reproduced themselves, up to rounding: the optimum.
    rounds : (k,) int array
    """
    quadratics = (_SampleQuadratics if len(features) <= features.shape[1] else _FeatureQuadratics)(features, penalty)
    solutions = [_follow_active_rows(quadratics, column, penalty) for column in labels.T]
    coefficients, converged, rounds = (numpy.array(part) for part in zip(*solutions, strict=True))
    return quadratics.weights(coefficients), converged, rounds


def _follow_active_rows(
    quadratics: "_SampleQuadratics | _FeatureQuadratics", labels: numpy.ndarray, penalty: float
) -> tuple[numpy.ndarray, bool, int]:
    """Return one column's coefficients, whether they are the optimum, and the rounds taken."""
    solved, start = _harmless_penalty(quadratics.norms), labels != 0
    penalties, active, wrong_counts = [penalty], start, []
    for rounds in range(1, MAX_ROUNDS + 1):
        coefficients, multipliers, predictions = quadratics.minimum(active, labels, penalties[-1])
        wrong = _wrong_rows(active, labels, multipliers, predictions, quadratics.norms)
        wrong_counts.append(numpy.count_nonzero(wrong))
        if rounds == 1 or wrong_counts[-1] == 0:
            best = coefficients
        if wrong_counts[-1] == 0:
            solved, start, wrong_counts = penalties.pop(), active, []
            if not penalties:
                return best, True, rounds
        elif min(wrong_counts[-PATIENCE:]) >= min(wrong_counts[:-PATIENCE], default=numpy.inf):
            penalties.extend(_penalties_between(solved, penalties[-1]))
            active, wrong_counts = start, []
        else:
            active = active ^ wrong
    return best, False, rounds


def _penalties_between(solved: float, wanted: float) -> list[float]:
    """Return one or more penalties between two, evenly spaced on the logarithmic scale, largest first."""
    steps = max(2, round(numpy.log(wanted / solved) / numpy.log(PENALTY_RATIO)))
    return numpy.geomspace(wanted, solved, steps + 1)[1:-1].tolist()


def _harmless_penalty(norms: numpy.ndarray) -> float:
    """Return a C so small that the optimum has every row inside the margin."""
    # At w = 0 the objective is C n, so the optimum has |w|^2 <= 2 C n, and |w.x| <= |w| |x| < 1.
    return 0.25 / (len(norms) * max(norms.max() ** 2, numpy.finfo(float).tiny))


def _wrong_rows(
    active: numpy.ndarray,
    labels: numpy.ndarray,
    multipliers: numpy.ndarray,
    predictions: numpy.ndarray,
    norms: numpy.ndarray,
) -> numpy.ndarray:
    """Tell which rows are active with y f > 1, or neither active nor left out with y f < 1, beyond rounding."""
    size = numpy.abs(multipliers)
    # Near a hard margin y f is 1 up to rounding in every active row, but its multiplier, 2 C (y - f), is precise.
    too_far = labels * multipliers < -TOLERANCE * size.max()
    rounding = TOLERANCE + numpy.finfo(float).eps * norms * (size @ norms)
    too_near = (labels != 0) & (labels * predictions < 1 - rounding)
    return numpy.where(active, too_far, too_near)


class _SampleQuadratics:
    """Minima for sets of active rows through the Gram matrix K (n, n); the coefficients are per row."""

    def __init__(self, features: numpy.ndarray, penalty: float):
        self.features, self.penalty = features, penalty
        self.gram = features @ features.T
        self.norms = self.gram.diagonal() ** 0.5
        self.inverse = _inverse(self.gram, 0.5 / penalty)

    def minimum(self, active: numpy.ndarray, labels: numpy.ndarray, penalty: float):
        """Return coefficients, multipliers and predictions where (K_ss + I/2C) a_s = y_s, a = 0 elsewhere."""
        few_absent = 3 * numpy.count_nonzero(active) >= 2 * len(active)
        if few_absent and penalty == self.penalty and self.inverse is not None:
            multipliers = self._solve_by_absent(~active, numpy.where(active, labels, 0.0))
        else:
            multipliers = numpy.zeros(len(labels))
            multipliers[active] = _solve(self.gram[numpy.ix_(active, active)], labels[active], 0.5 / penalty)
        return multipliers, multipliers, self.gram @ multipliers

    def weights(self, coefficients: numpy.ndarray) -> numpy.ndarray:
        """Return w = X^T a for each row of coefficients."""
        return coefficients @ self.features

    def _solve_by_absent(self, absent: numpy.ndarray, targets: numpy.ndarray) -> numpy.ndarray:
        # One inverse serves all rounds and columns: what is left is a system as large as the absent rows.
        multipliers = self.inverse @ targets
        block = self.inverse[numpy.ix_(absent, absent)]
        multipliers -= self.inverse[:, absent] @ _solve(block, multipliers[absent], 0.0)
        multipliers[absent] = 0.0
        return multipliers


class _FeatureQuadratics:
    """The same for more rows than features; the coefficients are the weights (d,)."""

    def __init__(self, features: numpy.ndarray, penalty: float):
        self.features = features
        self.norms = numpy.linalg.norm(features, axis=1)

    def minimum(self, active: numpy.ndarray, labels: numpy.ndarray, penalty: float):
        """Solve (X_s^T X_s + I/2C) w = X_s^T y_s, or the sample's system once that is the smaller one."""
        rows, targets, multipliers = self.features[active], labels[active], numpy.zeros(len(labels))
        if len(rows) > rows.shape[1]:
            weights = _solve(rows.T @ rows, targets @ rows, 0.5 / penalty)
            multipliers[active] = 2 * penalty * (targets - rows @ weights)
        else:
            multipliers[active] = _solve(rows @ rows.T, targets, 0.5 / penalty)
            weights = multipliers[active] @ rows
        return weights, multipliers, self.features @ weights

    def weights(self, coefficients: numpy.ndarray) -> numpy.ndarray:
        """Return the coefficients."""
        return coefficients


def _solve(matrix: numpy.ndarray, right: numpy.ndarray, shift: float) -> numpy.ndarray:
    """Solve (matrix + shift I) x = right for a positive semidefinite matrix, which is overwritten."""
    matrix[numpy.diag_indices_from(matrix)] += shift
    try:
        factor = scipy.linalg.cho_factor(matrix, lower=True, check_finite=False)
    except numpy.linalg.LinAlgError:
        # The shift is lost in rounding. In the limit of no shift the solution is the one of least norm.
        return scipy.linalg.pinvh(matrix, check_finite=False) @ right
    return scipy.linalg.cho_solve(factor, right, check_finite=False)


def _inverse(matrix: numpy.ndarray, shift: float) -> numpy.ndarray | None:
    """Return the inverse of matrix + shift I, or None where rounding has made it indefinite."""
    shifted = matrix.copy()
    shifted[numpy.diag_indices_from(shifted)] += shift
    factor, failure = scipy.linalg.lapack.dpotrf(shifted, lower=True)
    if failure:
        return None
    lower, _ = scipy.linalg.lapack.dpotri(factor, lower=True)
    return numpy.tril(lower) + numpy.tril(lower, -1).T
