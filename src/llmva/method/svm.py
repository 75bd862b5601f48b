"""Linear SVMs without intercept (Eq. 2, squared hinge), several label columns on one sample."""

import warnings
from dataclasses import dataclass

import numpy
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from llmva.core.errors import InputError
from llmva.method.newton import solve_newton

SOLVERS = ("newton", "liblinear")
LIBLINEAR_ROUNDS = 2000
# Of a row: float32 features stay far below, and sums of products of such rows stay finite.
LARGEST_SQUARE = numpy.finfo(numpy.float64).max ** 0.5


@dataclass(frozen=True, eq=False)
class SvmFit:
    """Fitted SVMs, one per label column.

    Attributes
    ----------
    weights : (k, d) float64 array
        The normals, pointing to label +1; zeros for "one class" and "non-finite".
    converged : (k,) bool array
        True where the optimum was reached.
    rounds : (k,) int array
        Newton's or liblinear's iterations; 0 where nothing was solved.
    outcome : tuple of str
        "fitted", "not converged" (the weights are the best found), "one class" or "non-finite".
    """

    weights: numpy.ndarray
    converged: numpy.ndarray
    rounds: numpy.ndarray
    outcome: tuple[str, ...]


def fit_svms(features: numpy.ndarray, labels: numpy.ndarray, *, penalty: float = 1.0, solver: str = "newton") -> SvmFit:
    """Minimise 1/2 w.w + C sum_i max(0, 1 - y_i w.x_i)^2 for each column of labels (Eq. 2).

    Parameters
    ----------
    features : (n, d) float array
        One row per prompt. All arithmetic is in float64.
    labels : (n, k) array of -1, 0, +1
        0 leaves the row out of that column.
    penalty : float
        C, positive.
    solver : {"newton", "liblinear"}
        The exact one, or scikit-learn's LinearSVC with at most 2,000 iterations, as the paper's.

    Returns
    -------
    SvmFit
        A column that cannot be fitted has a named outcome and zero weights, and raises nothing.

    Raises
    ------
    InputError
        On another solver, a penalty that is not positive, other labels, or shapes that do not fit.
    """
    features, labels = numpy.asarray(features, dtype=numpy.float64), numpy.asarray(labels, dtype=numpy.float64)
    _require_valid(features, labels, penalty, solver)
    usable = _usable_rows(features)
    outcome = [_reason_for_no_fit(column, usable) for column in labels.T]
    possible = [index for index, reason in enumerate(outcome) if reason is None]
    weights = numpy.zeros((labels.shape[1], features.shape[1]))
    converged, rounds = numpy.zeros(len(weights), dtype=bool), numpy.zeros(len(weights), dtype=int)
    if possible:
        # Rows that are left out or unusable are zeroed where they stand: they cannot harm the others.
        features = features if usable.all() else numpy.where(usable[:, None], features, 0.0)
        solve = solve_newton if solver == "newton" else _solve_liblinear
        weights[possible], converged[possible], rounds[possible] = solve(features, labels[:, possible], penalty)
    for index in possible:
        outcome[index] = "fitted" if converged[index] else "not converged"
    return SvmFit(weights, converged, rounds, tuple(outcome))


def svm_objective(features: numpy.ndarray, labels: numpy.ndarray, weights: numpy.ndarray, penalty: float) -> float:
    """Return 1/2 w.w + C sum_i max(0, 1 - y_i w.x_i)^2 of one column of labels (n,) and its weights (d,)."""
    rows = labels != 0
    slack = numpy.maximum(0, 1 - labels[rows] * (features[rows].astype(numpy.float64) @ weights))
    return float(weights @ weights / 2 + penalty * slack @ slack)


def _require_valid(features: numpy.ndarray, labels: numpy.ndarray, penalty: float, solver: str) -> None:
    if solver not in SOLVERS:
        raise InputError(f"solver: {solver!r} is unknown; choose {' or '.join(SOLVERS)}")
    if not 0 < penalty < numpy.inf:
        raise InputError(f"penalty: {penalty} is not allowed; give a positive number")
    if features.ndim != 2 or labels.ndim != 2 or len(features) != len(labels):
        raise InputError(f"labels: shape {labels.shape} does not fit features of shape {features.shape}; give (n, k)")
    if not numpy.isin(labels, (-1, 0, 1)).all():
        raise InputError("labels: not all are -1, 0 (left out) or +1; recode the others")


def _usable_rows(features: numpy.ndarray) -> numpy.ndarray:
    with numpy.errstate(over="ignore", invalid="ignore"):
        return numpy.einsum("ij,ij->i", features, features) < LARGEST_SQUARE


def _reason_for_no_fit(labels: numpy.ndarray, usable: numpy.ndarray) -> str | None:
    if not usable[labels != 0].all():
        return "non-finite"
    return None if (labels > 0).any() and (labels < 0).any() else "one class"


def _solve_liblinear(features: numpy.ndarray, labels: numpy.ndarray, penalty: float):
    models = [LinearSVC(C=penalty, fit_intercept=False, max_iter=LIBLINEAR_ROUNDS, random_state=0) for _ in labels.T]
    with warnings.catch_warnings():
        # Not silenced but recorded, as a number of rounds at the limit.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for model, column in zip(models, labels.T, strict=True):
            model.fit(features[column != 0], column[column != 0])
    rounds = numpy.array([model.n_iter_ for model in models])
    return numpy.concatenate([model.coef_ for model in models]), rounds < LIBLINEAR_ROUNDS, rounds
