"""Control vectors: the unit normals of two linear SVMs on a sublayer's outputs (Eq. 2 to 4)."""

from dataclasses import dataclass, replace

import numpy
import torch

from llmva.method.svm import SOLVERS, fit_svms, svm_objective


@dataclass(frozen=True, eq=False)
class ControlVectors:
    """A sublayer's two directions.

    Attributes
    ----------
    answer, benign : (d,) float64 array
        v_a and v_b, unit length, pointing to answered and to benign; zeros where there is none.
    answer_outcome, benign_outcome : str
        "fitted" or "not converged" (a vector is there), "one class", "non-finite" or "no direction".
    answer_accuracy, benign_accuracy : float
        Share of validation rows on the right side of the hyperplane; nan without a vector or labelled rows.
    """

    answer: numpy.ndarray
    benign: numpy.ndarray
    answer_outcome: str
    benign_outcome: str
    answer_accuracy: float
    benign_accuracy: float

    @property
    def angle(self) -> float:
        """The angle between v_a and v_b in degrees; nan when either is missing."""
        return angle_degrees(self.answer, self.benign)


def find_control_vectors(
    features: numpy.ndarray,
    benign_labels: numpy.ndarray,
    answer_labels: numpy.ndarray,
    *,
    validation: tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray],
    penalty: float = 1.0,
    solver: str = "newton",
) -> ControlVectors:
    """Find v_b and v_a of one sublayer (Eq. 3, 4) and their accuracies on validation.

    Parameters
    ----------
    features : (n, d) float array
        The sublayer's outputs at the last prompt token.
    benign_labels, answer_labels : (n,) array of -1, 0, +1
        +1 is benign, answered; 0 leaves the row out.
    validation : tuple
        Features, benign labels and answer labels of the validation split.
    penalty, solver
        As in `llmva.method.svm.fit_svms`.

    Raises
    ------
    InputError
        As `fit_svms`. Data that give no vector raise nothing; the outcome names the reason.
    """
    fit = fit_svms(features, numpy.column_stack([benign_labels, answer_labels]), penalty=penalty, solver=solver)
    (benign, benign_outcome), (answer, answer_outcome) = map(_unit_vector, fit.weights, fit.outcome)
    held_out, held_out_benign, held_out_answer = validation
    return ControlVectors(
        answer=answer,
        benign=benign,
        answer_outcome=answer_outcome,
        benign_outcome=benign_outcome,
        answer_accuracy=_accuracy(held_out, held_out_answer, answer),
        benign_accuracy=_accuracy(held_out, held_out_benign, benign),
    )


def angle_degrees(first: numpy.ndarray, second: numpy.ndarray) -> float:
    """Return the angle between two vectors, 0 to 180 degrees; nan when either is zero.

    Exact for small angles too, where the arc cosine loses half of the digits.
    """
    first, second = _scaled_to_unit(first), _scaled_to_unit(second)
    if not (first.any() and second.any()):
        return float("nan")
    return float(numpy.degrees(2 * numpy.arctan2(numpy.linalg.norm(first - second), numpy.linalg.norm(first + second))))


def distorted(vectors: ControlVectors, degrees: float, generator: numpy.random.Generator) -> ControlVectors:
    """Turn both vectors by an angle, each towards a random direction orthogonal to it (paper 5.4, Fig. 6)."""
    return replace(
        vectors,
        answer=_turned(vectors.answer, degrees, generator),
        benign=_turned(vectors.benign, degrees, generator),
    )


def rounded(vectors: ControlVectors, kind: str) -> ControlVectors:
    """Round both vectors to a floating type, as `bfloat16`, and bring them back to unit length."""

    def nearest(vector: numpy.ndarray) -> numpy.ndarray:
        return _scaled_to_unit(torch.from_numpy(vector).to(getattr(torch, kind)).double().numpy())

    return replace(vectors, answer=nearest(vectors.answer), benign=nearest(vectors.benign))


def random_angles(dimension: int, *, draws: int, generator: numpy.random.Generator) -> numpy.ndarray:
    """Return the angles, in degrees (draws,), of pairs of random directions of a dimension."""
    pairs = generator.normal(size=(draws, 2, dimension))
    return numpy.array([angle_degrees(first, second) for first, second in pairs])


def permuted_angles(
    features: numpy.ndarray,
    benign_labels: numpy.ndarray,
    answer_labels: numpy.ndarray,
    *,
    draws: int,
    generator: numpy.random.Generator,
    penalty: float = 1.0,
) -> numpy.ndarray:
    """Return the angles of v_a and v_b, in degrees (draws,), when labels say nothing about the features.

    In each draw each column of labels is shuffled on its own, so class counts stay and left-out rows
    stay left out. This is the null for Fig. 1: two random vectors are near orthogonal in any case.
    """
    columns = (numpy.asarray(benign_labels), numpy.asarray(answer_labels))
    shuffled = [_shuffle(column, generator) for _ in range(draws) for column in columns]
    weights = fit_svms(features, numpy.column_stack(shuffled), penalty=penalty).weights if draws else numpy.empty(0)
    return numpy.array([angle_degrees(*pair) for pair in zip(weights[0::2], weights[1::2], strict=True)])


def solver_difference(features: numpy.ndarray, labels: numpy.ndarray, penalty: float) -> dict:
    """Compare the exact solver with liblinear on features (n, d) and label columns (n, k).

    Returns
    -------
    dict
        `degrees_apart`, the largest angle between their solutions; `excess_objective`, the largest share by
        which liblinear's objective exceeds the exact one; `newton_converged` and `liblinear_converged`.
    """
    fits = {solver: fit_svms(features, labels, penalty=penalty, solver=solver) for solver in SOLVERS}
    angles, excess = [], []
    for column, exact, other in zip(labels.T, fits["newton"].weights, fits["liblinear"].weights, strict=True):
        angles.append(angle_degrees(exact, other))
        objectives = [svm_objective(features, column, weights, penalty) for weights in (exact, other)]
        excess.append(objectives[1] / objectives[0] - 1 if objectives[0] else numpy.nan)
    converged = {f"{solver}_converged": bool(fit.converged.all()) for solver, fit in fits.items()}
    return {"degrees_apart": max(angles), "excess_objective": max(excess), **converged}


def _turned(vector: numpy.ndarray, degrees: float, generator: numpy.random.Generator) -> numpy.ndarray:
    if not vector.any():
        return vector
    aside = generator.normal(size=len(vector))
    aside = _scaled_to_unit(aside - (aside @ vector) * vector)
    turn = numpy.radians(degrees)
    return numpy.cos(turn) * vector + numpy.sin(turn) * aside


def _unit_vector(weights: numpy.ndarray, outcome: str) -> tuple[numpy.ndarray, str]:
    vector = _scaled_to_unit(weights)
    # Features that are all zero can be fitted, but point nowhere.
    return vector, "no direction" if outcome == "fitted" and not vector.any() else outcome


def _scaled_to_unit(vector: numpy.ndarray) -> numpy.ndarray:
    vector = numpy.asarray(vector, dtype=numpy.float64)
    length = numpy.linalg.norm(vector)
    return vector / length if length > 0 else numpy.zeros_like(vector)


def _accuracy(features: numpy.ndarray, labels: numpy.ndarray, vector: numpy.ndarray) -> float:
    labels = numpy.asarray(labels)
    labelled = labels != 0
    if not labelled.any() or not vector.any():
        return float("nan")
    projections = numpy.asarray(features, dtype=numpy.float64)[labelled] @ vector
    # A projection that is zero or not finite is on neither side, which counts as wrong.
    return float(numpy.mean(numpy.sign(projections) == labels[labelled]))


def _shuffle(labels: numpy.ndarray, generator: numpy.random.Generator) -> numpy.ndarray:
    shuffled, labelled = labels.copy(), labels != 0
    shuffled[labelled] = generator.permutation(labels[labelled])
    return shuffled
