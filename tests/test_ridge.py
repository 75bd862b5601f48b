"""The ridge edit: the paper's update as its limit, one solution by two routes, and neutral inputs left alone."""

import numpy
import pandas
import pytest
import torch

from llmva.method.control_vectors import find_control_vectors
from llmva.method.edit import edit_target, projection_scale
from llmva.method.iteration import feature_size
from llmva.method.ridge_edit import first_of_each_task, ridge_input_vector
from llmva.models.chat_model import encode_with_replies


@pytest.fixture
def rows():
    draws = numpy.random.default_rng(0)
    return draws.normal(size=(60, 12)), draws.normal(size=(200, 12)), draws.normal(size=12)


def explicit(target, inputs, neutral, neutral_weight, damping):
    """The formula as DESIGN writes it, with the d_in x d_in matrices."""
    own = inputs.T @ inputs / len(inputs)
    other = neutral.T @ neutral / len(neutral)
    ridge = damping * numpy.trace(own) / len(own) * numpy.eye(len(own))
    return numpy.linalg.solve(own + neutral_weight * other + ridge, own @ target)


def test_without_lambda_and_mu_it_is_the_papers_update(rows):
    inputs, neutral, target = rows
    found = ridge_input_vector(target, inputs, neutral, neutral_weight=0.0, damping=0.0)
    numpy.testing.assert_allclose(found, target, atol=1e-10)


@pytest.mark.parametrize("count", [60, 5])
def test_narrow_and_wide_modules_have_the_formulas_solution(rows, count):
    # With 5 + 5 rows of 12 inputs the solve goes through the Gram matrix, with 60 + 200 it does not.
    inputs, neutral, target = rows[0][:count], rows[1][: 200 if count > 5 else 5], rows[2]
    found = ridge_input_vector(target, inputs, neutral, neutral_weight=1.0, damping=1e-3)
    numpy.testing.assert_allclose(found, explicit(target, inputs, neutral, 1.0, 1e-3), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("count", [60, 5])
def test_torch_finds_the_same_as_numpy(rows, count):
    inputs, neutral, target = rows[0][:count], rows[1][: 200 if count > 5 else 5], rows[2]
    options = {"neutral_weight": 1.0, "damping": 1e-3}
    found = ridge_input_vector(target, inputs, neutral, **options, device=torch.device("cpu"))
    assert found.dtype == numpy.float64
    numpy.testing.assert_allclose(found, ridge_input_vector(target, inputs, neutral, **options), rtol=1e-10)


def test_a_wide_module_never_holds_a_square_matrix_of_its_width():
    draws = numpy.random.default_rng(1)
    inputs, neutral = draws.normal(size=(20, 60_000)), draws.normal(size=(10, 60_000))
    # 60,000 squared would be 29 GB.
    found = ridge_input_vector(draws.normal(size=60_000), inputs, neutral, neutral_weight=1.0, damping=1e-3)
    assert found.shape == (60_000,) and numpy.isfinite(found).all()


def test_neutral_inputs_are_left_alone_and_safety_inputs_are_not():
    draws = numpy.random.default_rng(2)
    inputs, neutral, target = numpy.zeros((50, 20)), numpy.zeros((80, 20)), draws.normal(size=20)
    inputs[:, :10], neutral[:, 8:] = draws.normal(size=(50, 10)), draws.normal(size=(80, 12))
    found = ridge_input_vector(target, inputs, neutral, neutral_weight=100.0, damping=1e-6)
    exact = inputs @ target
    assert numpy.abs(neutral @ found).mean() < 0.1 * numpy.abs(neutral @ target).mean()
    assert numpy.corrcoef(inputs @ found, exact)[0, 1] > 0.8


def test_fewer_rows_than_width_and_no_damping_give_the_shortest_solution(rows):
    inputs, _, target = rows
    found = ridge_input_vector(target, inputs[:4], None, neutral_weight=1.0, damping=0.0)
    numpy.testing.assert_allclose(inputs[:4] @ found, inputs[:4] @ target, atol=1e-10)
    assert numpy.linalg.norm(found) < numpy.linalg.norm(target)


def test_soft_margins_and_the_ridge_edit_align_a_planted_geometry_and_leave_neutral_inputs_alone():
    draws = numpy.random.default_rng(4)
    d_in, d_out = 24, 40
    # Input 0 carries safety and input 1 a cue that decides on answering; neutral text uses inputs 2 and on.
    directions = numpy.linalg.qr(draws.normal(size=(d_out, d_in)))[0]
    weight = directions * numpy.array([2.0, 3.0, *[1.0] * (d_in - 2)])
    signs = draws.choice([-1, 1], size=(400, 2))
    inputs = draws.normal(size=(400, d_in)) * 0.3
    inputs[:, :2] = signs * draws.uniform(0.7, 1.3, size=(400, 2))
    neutral = draws.normal(size=(600, d_in)) * ([0.02] * 2 + [1.0] * (d_in - 2))
    labels = numpy.where(draws.random((400, 2)) < 0.05, -signs, signs)
    train, test, outputs = slice(0, 300), slice(300, 400), inputs @ weight.T
    size = feature_size(outputs[train], "length")
    found = find_control_vectors(
        outputs[train] / size, *labels[train].T, validation=(outputs[test] / size, *labels[test].T), penalty=0.1
    )
    assert abs(found.benign @ directions[:, 0]) > 0.95 and abs(found.answer @ directions[:, 1]) > 0.95
    scale = projection_scale(outputs[train], found.answer, found.benign)
    target, _ = edit_target(torch.from_numpy(weight), None, answer=found.answer, benign=found.benign, scale=scale)
    step = ridge_input_vector(target, inputs[train], neutral[:300], neutral_weight=1.0, damping=1e-3)
    aligned = weight + numpy.outer(found.answer, step)
    before, after = outputs[test] @ found.answer, inputs[test] @ aligned.T @ found.answer
    # Before, answering follows its cue and not safety; afterwards safety, on inputs that no fit has seen.
    assert abs(numpy.corrcoef(before, signs[test, 0])[0, 1]) < 0.3
    assert (numpy.sign(after) == signs[test, 0]).mean() > 0.97
    moved = (neutral[300:] @ (aligned - weight).T).std() / (neutral[300:] @ weight.T).std()
    exact = numpy.outer(found.answer, target)
    assert moved < 0.05 and moved < 0.3 * (neutral[300:] @ exact.T).std() / (neutral[300:] @ weight.T).std()


def test_neutral_text_is_the_first_whole_exchanges_of_each_task(llama):
    rows = [(task, f"question {number} of {task}", "sure") for task in ("b", "a") for number in range(9)]
    exchanges = pandas.DataFrame([*rows, ("c", "only one", "no")], columns=["task", "prompt", "reply"])
    encoded, _ = encode_with_replies(llama.tokenizer, exchanges["prompt"], exchanges["reply"])
    sizes = pandas.Series(list(map(len, encoded)), index=exchanges["prompt"])
    chosen = first_of_each_task(exchanges, llama.tokenizer, 5 * max(sizes))
    taken = sizes[chosen["prompt"]].sum()
    assert 4 * max(sizes) < taken <= 5 * max(sizes)
    assert chosen["task"].value_counts()[["a", "b"]].ge(2).all() and "only one" in set(chosen["prompt"])
    assert set(chosen["prompt"]) >= {"question 0 of a", "question 1 of a", "question 0 of b", "question 1 of b"}
    # One alone is read whatever its size.
    assert first_of_each_task(exchanges, llama.tokenizer, 1)["prompt"].tolist() == ["question 0 of b"]
