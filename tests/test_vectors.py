"""Control vectors: planted directions, the exact solver against three others, and data that allow no fit."""

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.svm import LinearSVC

from llmva.core.errors import InputError
from llmva.method import newton
from llmva.method.control_vectors import (
    angle_degrees,
    distorted,
    find_control_vectors,
    permuted_angles,
    random_angles,
    rounded,
    solver_difference,
)
from llmva.method.svm import fit_svms
from llmva.performance.benchmarks.solver import draw_features

few_examples = settings(max_examples=30, deadline=None, derandomize=True)


def generator(*seed: int) -> numpy.random.Generator:
    return numpy.random.default_rng(seed)


def massive(features: numpy.ndarray, generator: numpy.random.Generator) -> numpy.ndarray:
    """Blow up two dimensions, as in real residual streams."""
    features = features.copy()
    features[:, 7] += 1000
    features[:, 31] = -300 * (1 + 0.1 * generator.standard_normal(len(features)))
    return features


def quadratic_programme(features: numpy.ndarray, labels: numpy.ndarray, penalty: float) -> numpy.ndarray:
    """Solve the SVM's dual by Lawson and Hanson's method: another formulation, another algorithm.

    Minimising |A a - b|^2 with A = [X^T Y; I/sqrt(2C)] and b = [0; sqrt(2C)] over a >= 0.
    """
    signed = features.astype(numpy.float64) * labels[:, None]
    root = (2 * penalty) ** 0.5
    system = numpy.vstack([signed.T, numpy.eye(len(signed)) / root])
    target = numpy.concatenate([numpy.zeros(features.shape[1]), numpy.full(len(signed), root)])
    return nnls(system, target, maxiter=100 * len(signed))[0] @ signed


def objective(weights: numpy.ndarray, features: numpy.ndarray, labels: numpy.ndarray, penalty: float) -> float:
    slack = numpy.maximum(0, 1 - labels * (features.astype(numpy.float64) @ weights))[labels != 0]
    return 0.5 * weights @ weights + penalty * slack @ slack


@pytest.mark.parametrize("solver", ["newton", "liblinear"])
def test_planted_directions_are_found_again(solver):
    draw = generator(1)
    benign, answer = numpy.linalg.qr(draw.standard_normal((24, 2)))[0].T
    truth = draw.choice([-1, 1], (4000, 2))
    features = draw.standard_normal((4000, 24)) + truth @ numpy.array([2 * benign, 2 * answer])
    train, held_out = slice(0, 3000), slice(3000, None)
    vectors = find_control_vectors(
        features[train],
        *truth[train].T,
        validation=(features[held_out], *truth[held_out].T),
        solver=solver,
    )
    assert angle_degrees(vectors.benign, benign) < 15
    assert angle_degrees(vectors.answer, answer) < 15
    assert vectors.angle == pytest.approx(90, abs=15)
    assert (vectors.benign_outcome, vectors.answer_outcome) == ("fitted", "fitted")
    assert min(vectors.benign_accuracy, vectors.answer_accuracy) > 0.95
    assert [numpy.linalg.norm(vector) for vector in (vectors.benign, vectors.answer)] == pytest.approx([1, 1])


def test_accuracy_counts_labelled_validation_rows_only():
    features = numpy.array([[1.0, 0], [-1, 0], [2, 1], [-2, 1]])
    labels = numpy.array([1, -1, 1, -1])
    held_out = numpy.array([[1.0, 0], [1, 0], [-1, 0], [1, 0], [numpy.nan, 0]])
    vectors = find_control_vectors(
        features, labels, labels, validation=(held_out, numpy.array([1, -1, -1, 0, 0]), numpy.array([0, 0, 0, 1, 1]))
    )
    assert vectors.benign_accuracy == pytest.approx(2 / 3)
    # A validation row that is not finite is on no side, and so is wrong.
    assert vectors.answer_accuracy == 0.5
    nothing = find_control_vectors(features, labels, labels, validation=(held_out, 0 * held_out[:, 1], numpy.zeros(5)))
    assert numpy.isnan(nothing.answer_accuracy)


@pytest.mark.parametrize(("samples", "dimension"), [(120, 300), (300, 40), (150, 150)])
def test_agrees_with_scikit_learn_where_that_converges(samples, dimension):
    features, labels = draw_features(samples, dimension, 0.0, generator(2))
    features *= 0.1
    exact, official = (fit_svms(features, labels, solver=solver) for solver in ("newton", "liblinear"))
    assert exact.converged.all()
    assert official.converged.all()
    # Its default tolerance leaves some hundredths of a degree; without it nothing is left.
    assert max(map(angle_degrees, exact.weights, official.weights)) < 0.05
    for weights, column in zip(exact.weights, labels.T, strict=True):
        long_run = LinearSVC(fit_intercept=False, tol=1e-10, max_iter=10**6, random_state=0).fit(features, column)
        assert angle_degrees(weights, long_run.coef_[0]) < 1e-5
        assert numpy.linalg.norm(weights) == pytest.approx(numpy.linalg.norm(long_run.coef_), rel=1e-6)


@pytest.mark.parametrize("dimension", [60, 180, 400])
@pytest.mark.parametrize("make_massive", [False, True])
@pytest.mark.parametrize("scale", [0.02, 1.0, 50.0])
def test_is_exact_on_ill_conditioned_features(dimension, make_massive, scale):
    features, labels = draw_features(180, dimension, 10.0, generator(3, dimension))
    features = scale * (massive(features, generator(4)) if make_massive else features)
    fit = fit_svms(features, labels)
    assert fit.outcome == ("fitted", "fitted")
    for weights, column in zip(fit.weights, labels.T, strict=True):
        reference = quadratic_programme(features, column, 1.0)
        lowest = objective(reference, features, column, 1.0)
        assert objective(weights, features, column, 1.0) <= lowest * (1 + 1e-9)
        assert angle_degrees(weights, reference) < 1e-3


def test_liblinear_reports_that_it_did_not_converge():
    features, labels = draw_features(100, 200, 10.0, generator(5))
    fit = fit_svms(massive(features, generator(6)), labels, solver="liblinear")
    assert fit.outcome == ("not converged", "not converged")
    assert (fit.rounds == 2000).all()
    assert not fit.converged.any()
    assert fit.weights.any(axis=1).all()


def test_newton_reports_that_it_did_not_converge(monkeypatch):
    monkeypatch.setattr(newton, "MAX_ROUNDS", 1)
    features, labels = draw_features(100, 40, 3.0, generator(7))
    fit = fit_svms(features, labels)
    assert fit.outcome == ("not converged", "not converged")
    assert fit.weights.any(axis=1).all()


def test_a_circle_of_active_rows_is_left_through_smaller_penalties(monkeypatch):
    features, labels = draw_features(200, 60, 10.0, generator(8))
    followed, between = [], newton._penalties_between
    monkeypatch.setattr(newton, "_penalties_between", lambda *limits: followed.append(limits) or between(*limits))
    fit = fit_svms(30 * features, labels)
    assert followed, "these data no longer run in a circle: plant others"
    assert fit.converged.all()
    assert fit.rounds.max() < 60
    for weights, column in zip(fit.weights, labels.T, strict=True):
        assert angle_degrees(weights, quadratic_programme(30 * features, column, 1.0)) < 1e-3


@given(seed=st.integers(0, 10**6), power=st.integers(-2, 3), left_out=st.booleans())
@few_examples
def test_sample_and_feature_space_agree(seed, power, left_out):
    draw = generator(9, seed)
    features = draw.standard_normal((30, 30)) + 5 * draw.standard_normal(30)
    labels = draw.choice([-1.0, 0.0, 1.0] if left_out else [-1.0, 1.0], (30, 2))
    labels[:2] = [[1, 1], [-1, -1]]
    fits = []
    for space in (newton._SampleQuadratics, newton._FeatureQuadratics):
        quadratics = space(features, 10.0**power)
        solutions = [newton._follow_active_rows(quadratics, column, 10.0**power) for column in labels.T]
        assert all(converged for _, converged, _ in solutions)
        fits.append(quadratics.weights(numpy.array([coefficients for coefficients, _, _ in solutions])))
    numpy.testing.assert_allclose(fits[0], fits[1], rtol=1e-6, atol=1e-8)


@given(seed=st.integers(0, 10**6), dimension=st.sampled_from([5, 60]))
@few_examples
def test_left_out_rows_are_as_good_as_removed(seed, dimension):
    draw = generator(10, seed)
    features = draw.standard_normal((40, dimension)) + 3
    labels = draw.choice([-1, 0, 1], (40, 2))
    labels[:2] = [[1, 1], [-1, -1]]
    together = fit_svms(features, labels)
    for index, column in enumerate(labels.T):
        alone = fit_svms(features[column != 0], column[column != 0, None])
        numpy.testing.assert_allclose(together.weights[index], alone.weights[0], rtol=1e-6, atol=1e-9)


@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([1e-30, 1e-6, 1e-2, 1.0, 1e3, 1e6, 1e30]),
    kind=st.sampled_from(["integers", "duplicates", "constant column"]),
    shape=st.sampled_from([(2, 1), (6, 2), (12, 40), (40, 12)]),
)
@few_examples
def test_any_finite_features_have_a_fit_no_worse_than_zero(seed, scale, kind, shape):
    draw = generator(11, seed)
    features = draw.integers(-2, 3, shape).astype(float)
    if kind == "duplicates":
        features = draw.standard_normal(shape)[draw.integers(0, shape[0], shape[0])]
    if kind == "constant column":
        features[:, 0] = 7
    features = (scale * features).astype(numpy.float32)
    labels = numpy.resize([1, -1], (shape[0], 1))
    fit = fit_svms(features, labels)
    assert fit.outcome[0] in ("fitted", "not converged")
    assert numpy.isfinite(fit.weights).all()
    if scale <= 1e3:
        assert fit.converged.all()
        assert objective(fit.weights[0], features, labels[:, 0], 1.0) <= shape[0] * (1 + 1e-12)


@given(seed=st.integers(0, 10**6), factor=st.sampled_from([0.01, 3.0, 200.0]))
@few_examples
def test_scaling_features_is_scaling_the_penalty(seed, factor):
    features, labels = draw_features(30, 20, 1.0, generator(12, seed))
    labels[:2] = [[1, 1], [-1, -1]]
    scaled = fit_svms(features.astype(float) * factor, labels)
    other = fit_svms(features, labels, penalty=factor**2)
    numpy.testing.assert_allclose(scaled.weights * factor, other.weights, rtol=1e-5, atol=1e-8)


def test_duplicated_rows_are_a_doubled_penalty():
    features, labels = draw_features(50, 30, 2.0, generator(13))
    twice = fit_svms(numpy.repeat(features, 2, axis=0), numpy.repeat(labels, 2, axis=0))
    numpy.testing.assert_allclose(twice.weights, fit_svms(features, labels, penalty=2.0).weights, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("solver", ["newton", "liblinear"])
def test_what_cannot_be_fitted_is_named_and_harms_no_other_column(solver):
    features, labels = draw_features(40, 60, 1.0, generator(14))
    features[5, 3], features[6, 0] = numpy.nan, numpy.inf
    whole = labels[:, 0].copy()
    usable = whole.copy()
    usable[[5, 6]] = 0
    with_nan, with_infinity = usable.copy(), usable.copy()
    with_nan[5], with_infinity[6] = 1, 1
    columns = [usable, with_nan, with_infinity, numpy.abs(usable), -numpy.abs(usable), 0 * usable]
    fit = fit_svms(features, numpy.column_stack(columns), solver=solver)
    assert fit.outcome == ("fitted", "non-finite", "non-finite", "one class", "one class", "one class")
    assert not fit.weights[1:].any()
    assert not fit.converged[1:].any()
    kept = usable != 0
    alone = fit_svms(features[kept], usable[kept, None], solver=solver)
    numpy.testing.assert_allclose(fit.weights[0], alone.weights[0], rtol=1e-7, atol=1e-10)


def test_one_row_and_no_rows_are_one_class():
    assert fit_svms(numpy.ones((1, 3)), numpy.ones((1, 1))).outcome == ("one class",)
    assert fit_svms(numpy.ones((0, 3)), numpy.ones((0, 2))).outcome == ("one class", "one class")


def test_values_beyond_float32_are_not_finite_features():
    assert fit_svms(numpy.array([[1e200], [1.0]]), numpy.array([[1], [-1]])).outcome == ("non-finite",)


def test_features_that_are_all_zero_give_no_direction():
    features, labels = numpy.zeros((4, 3)), numpy.array([1, -1, 1, -1])
    vectors = find_control_vectors(features, labels, numpy.ones(4), validation=(features, labels, labels))
    assert (vectors.benign_outcome, vectors.answer_outcome) == ("no direction", "one class")
    assert not vectors.benign.any()
    assert not vectors.answer.any()
    assert numpy.isnan([vectors.angle, vectors.benign_accuracy, vectors.answer_accuracy]).all()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"solver": "adam"}, "solver"),
        ({"penalty": 0.0}, "penalty"),
        ({"penalty": numpy.nan}, "penalty"),
        ({"labels": numpy.array([[0.5], [1]])}, "labels"),
        ({"labels": numpy.array([1, -1])}, "labels"),
        ({"labels": numpy.array([[1], [-1], [1]])}, "labels"),
    ],
)
def test_bad_input_is_named(change, word):
    given_input = {"features": numpy.ones((2, 3)), "labels": numpy.array([[1], [-1]])} | change
    with pytest.raises(InputError, match=f"^{word}:"):
        fit_svms(given_input.pop("features"), given_input.pop("labels"), **given_input)


def test_angles_are_exact_even_when_tiny():
    assert angle_degrees([1, 0], [0, 5]) == pytest.approx(90)
    assert angle_degrees([2, 0], [-1, 0]) == pytest.approx(180)
    assert angle_degrees([1, 0], [1, 1e-9]) == pytest.approx(numpy.degrees(1e-9))
    assert numpy.isnan(angle_degrees([0, 0], [1, 0]))


def test_permuted_labels_lose_the_angle_that_was_planted():
    draw = generator(15)
    labels = draw.choice([-1, 1], 200)
    features = draw.standard_normal((200, 50)) + 2 * numpy.outer(labels, draw.standard_normal(50))
    found = find_control_vectors(features, labels, labels, validation=(features, labels, labels))
    null = permuted_angles(features, labels, labels, draws=20, generator=generator(16))
    assert found.angle == 0
    assert null.shape == (20,)
    assert 75 < null.mean() < 105
    assert null.min() > 45
    numpy.testing.assert_array_equal(null, permuted_angles(features, labels, labels, draws=20, generator=generator(16)))
    assert permuted_angles(features, labels, labels, draws=0, generator=generator(16)).shape == (0,)


def test_permuting_keeps_class_counts_and_left_out_rows(monkeypatch):
    features, labels = draw_features(60, 80, 1.0, generator(17))
    labels[:9, 1] = 0
    seen = {}

    def fit(features, columns, **options):
        seen["columns"] = columns
        return fit_svms(features, columns, **options)

    monkeypatch.setattr("llmva.method.control_vectors.fit_svms", fit)
    permuted_angles(features, *labels.T, draws=3, generator=generator(18))
    columns = seen["columns"].T
    for shuffled, original in zip(columns, [labels[:, 0], labels[:, 1]] * 3, strict=True):
        numpy.testing.assert_array_equal(numpy.sort(shuffled), numpy.sort(original))
        numpy.testing.assert_array_equal(shuffled == 0, original == 0)
    assert len({column.tobytes() for column in columns}) == 6


def test_permuted_angles_of_one_class_are_missing():
    angles = permuted_angles(
        numpy.ones((4, 2)), numpy.ones(4), numpy.array([1, -1, 1, -1]), draws=2, generator=generator(19)
    )
    assert numpy.isnan(angles).all()


def test_the_exact_solver_is_never_beaten_by_liblinear():
    generator = numpy.random.default_rng(0)
    features = generator.normal(size=(120, 40)) + 20 * generator.normal(size=40)
    labels = numpy.where(generator.random((120, 2)) < 0.5, 1, -1)
    compared = solver_difference(features, labels, penalty=1.0)
    assert compared["newton_converged"] and compared["excess_objective"] >= -1e-12
    easy = solver_difference(generator.normal(size=(120, 40)), labels, penalty=0.01)
    assert easy["degrees_apart"] < 0.1 and easy["excess_objective"] < 1e-4


# Distortion, rounding, chance


@pytest.mark.parametrize("degrees", [0, 15, 60, 90])
def test_distorted_vectors_lie_the_asked_angle_away_and_stay_of_unit_length(degrees):
    draws = numpy.random.default_rng(0)
    features = draws.normal(size=(60, 24))
    labels = numpy.sign(features[:, 0]), numpy.sign(features[:, 1])
    found = find_control_vectors(features, *labels, validation=(features, *labels))
    turned = distorted(found, degrees, numpy.random.default_rng(1))
    for kind in ("answer", "benign"):
        assert angle_degrees(getattr(found, kind), getattr(turned, kind)) == pytest.approx(degrees, abs=1e-6)
        assert numpy.linalg.norm(getattr(turned, kind)) == pytest.approx(1)
    other = distorted(found, degrees, numpy.random.default_rng(2))
    assert degrees == 0 or angle_degrees(turned.answer, other.answer) > 1


def test_a_missing_vector_stays_missing_when_distorted():
    features = numpy.random.default_rng(0).normal(size=(10, 4))
    ones = numpy.ones(10)
    found = find_control_vectors(features, ones, ones, validation=(features, ones, ones))
    assert not distorted(found, 45, numpy.random.default_rng(1)).answer.any()


def test_rounded_vectors_are_bfloat16_before_they_get_unit_length():
    features = numpy.random.default_rng(0).normal(size=(60, 24))
    labels = numpy.sign(features[:, 0]), numpy.sign(features[:, 1])
    found = find_control_vectors(features, *labels, validation=(features, *labels))
    coarse = rounded(found, "bfloat16")
    assert 0 < angle_degrees(found.answer, coarse.answer) < 0.5
    assert numpy.linalg.norm(coarse.answer) == pytest.approx(1)


def test_random_directions_are_near_orthogonal_and_more_so_in_more_dimensions():
    narrow, wide = (random_angles(d, draws=400, generator=numpy.random.default_rng(0)) for d in (16, 1024))
    assert narrow.mean() == pytest.approx(90, abs=2) and wide.mean() == pytest.approx(90, abs=0.5)
    # The standard deviation of the cosine is 1 / sqrt(d).
    assert numpy.cos(numpy.radians(wide)).std() == pytest.approx(1 / 32, rel=0.15)
    assert narrow.std() > 4 * wide.std()
