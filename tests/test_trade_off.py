"""The trade-off: u(beta) is the ridge edit of the moved target, beta 0 the loop's own, and the choice of beta."""

import numpy
import pandas
import pytest
import torch
from conftest import prompt_table
from test_alignment import SETTINGS, examiner_of

from llmva.core.errors import InputError
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog
from llmva.method.iteration import Observer
from llmva.method.loop import align
from llmva.method.ridge_edit import offset_input_vector, ridge_input_vector
from llmva.method.trade_off import TradeOff, choose_beta, solve_offsets, weight_of
from llmva.models.activations import Capture
from llmva.models.reading import read_activations
from llmva.prompts.pools import assign_splits
from llmva.steering.moved import BETAS, Moved

RIDGE = SETTINGS.changed(iterations=2, update="ridge", feature_scale="length")


@pytest.fixture
def rows():
    draws = numpy.random.default_rng(0)
    return draws.normal(size=(60, 12)), draws.normal(size=(200, 12)), draws.normal(size=12)


@pytest.mark.parametrize("beta", [-0.5, 2.0])
@pytest.mark.parametrize("damping", [0.0, 1e-3])
def test_u_of_beta_is_the_solution_for_the_moved_target(rows, beta, damping):
    inputs, neutral, target = rows
    options = {"neutral_weight": 1.0, "damping": damping}
    own, other = inputs.T @ inputs / len(inputs), neutral.T @ neutral / len(neutral)
    ridge = damping * numpy.trace(own) / len(own) * numpy.eye(len(own))
    wanted = inputs.T @ (inputs @ target + beta * 0.7) / len(inputs)
    moved = numpy.linalg.solve(own + other + ridge, wanted)
    found = ridge_input_vector(target, inputs, neutral, **options)
    found += beta * offset_input_vector(0.7, inputs, neutral, **options)
    numpy.testing.assert_allclose(found, moved, rtol=1e-7, atol=1e-9)


def test_torch_solves_the_same_offset(rows):
    options = {"neutral_weight": 1.0, "damping": 1e-3}
    found = offset_input_vector(0.7, *rows[:2], **options, device=torch.device("cpu"))
    numpy.testing.assert_allclose(found, offset_input_vector(0.7, *rows[:2], **options), rtol=1e-10)


@pytest.fixture
def pool():
    table = prompt_table()
    table["split"] = assign_splits(table, seed=0)
    return table


@pytest.fixture
def trade_off(llama, pool, tmp_path):
    done = align(examiner_of(llama), pool, RIDGE, folder=tmp_path, upstream=())
    with EditedModel(llama.writers) as edited:
        observer = Observer(examiner_of(llama), edited, pool, RIDGE.observation)
        return TradeOff(done.log, solve_offsets(observer, done.log))


def projections(llama, pool, log, edit) -> numpy.ndarray:
    with EditedModel(llama.writers) as edited:
        edited.apply(log)
        read = read_activations(llama, pool["prompt"].tolist(), capture=Capture(final=False), batch_size=64)
    return read.outputs[edit.sublayer] @ edit.answer_vector


def test_only_the_last_edit_moves_and_the_rank_stays(trade_off):
    assert trade_off.at(0) is trade_off.log
    moved = trade_off.at(-0.5)
    assert moved.iterations[:-1] == trade_off.log.iterations[:-1] and len(moved) == len(trade_off.log)
    for before, after, offset in zip(
        trade_off.log.iterations[-1], moved.iterations[-1], trade_off.offsets.iterations[0], strict=True
    ):
        assert before.sublayer == after.sublayer == offset.sublayer and before.bias_step == after.bias_step
        numpy.testing.assert_allclose(after.input_vector, before.input_vector - 0.5 * offset.input_vector, rtol=1e-6)


def test_a_positive_beta_moves_the_answer_projection_up_by_about_sigma(trade_off, llama, pool):
    # The first sublayer that is edited reads what it read before: no other edit changes its inputs.
    edit = min(trade_off.log.iterations[-1], key=lambda edit: edit.sublayer.split(".")[::-1])
    train = pool[pool["split"] == "train"]
    start = projections(llama, train, trade_off.log.at_iteration(len(trade_off.log) - 1), edit).std(ddof=1)
    shift = projections(llama, train, trade_off.at(1.0), edit) - projections(llama, train, trade_off.log, edit)
    assert 0.5 * start < shift.mean() < 1.1 * start
    down = projections(llama, train, trade_off.at(-1.0), edit) - projections(llama, train, trade_off.log, edit)
    numpy.testing.assert_allclose(down, -shift, atol=1e-5)


def test_as_a_method_it_leaves_the_model_as_it_was(trade_off, llama):
    before = {name: weight.clone() for name, weight in llama.model.state_dict().items()}
    method = Moved(trade_off)
    assert method.outcome == "fitted" and method.search_space(3) == [{"beta": beta} for beta in (0.0, -0.05, 0.05)]
    with method.applied(llama, {"beta": 0.5}):
        assert not all(torch.equal(weight, before[name]) for name, weight in llama.model.state_dict().items())
    assert all(torch.equal(weight, before[name]) for name, weight in llama.model.state_dict().items())


def test_without_an_edit_there_is_nothing_to_move(llama, pool):
    with EditedModel(llama.writers) as edited:
        offsets = solve_offsets(Observer(examiner_of(llama), edited, pool, RIDGE.observation), EditLog())
    nothing = TradeOff(EditLog(), offsets)
    assert len(nothing.at(-1)) == 0 and Moved(nothing).search_space(20) == [{"beta": 0.0}]
    assert Moved(nothing).outcome == "nothing to fit"


def test_a_file_without_offsets_is_one_line(trade_off, tmp_path):
    trade_off.log.save(tmp_path / "edit_log.safetensors", {})
    trade_off.offsets.save(tmp_path / "trade_off.safetensors", {})
    with pytest.raises(InputError, match="not the last edits and their offsets; write the folder again"):
        TradeOff.load(tmp_path)


def test_the_betas_are_symmetric_and_begin_with_none():
    assert BETAS[0] == 0 and sorted(BETAS) == sorted(-beta for beta in BETAS) and len(set(BETAS)) == len(BETAS)


TRIALS = pandas.DataFrame(
    {
        "beta": [0.0, -0.5, 0.5, -1.0, 1.0],
        "strict_asr": [0.2, 0.1, 0.4, 0.1, 0.5],
        "strict_orr": [0.2, 0.3, 0.1, 0.4, 0.0],
    }
)


@pytest.mark.parametrize(("weight", "expected"), [(0.5, 0.0), (0.8, -0.5), (0.1, 1.0), (1.0, -0.5), (0.0, 1.0)])
def test_beta_is_chosen_by_the_weighted_loss(weight, expected):
    # At 0.5 beta 0 and -0.5 are equal, and at 1 beta -0.5 and -1: the smaller move wins.
    assert choose_beta(TRIALS, weight) == expected


@pytest.mark.parametrize("beta", [float("nan"), None, True, 2, "0.5", [1]])
def test_only_a_beta_that_the_frontier_has_is_taken(trade_off, beta):
    with pytest.raises(InputError, match="beta: is .*; choose a number from -1"):
        trade_off.at(beta)
    assert len(trade_off.at(numpy.float32(0.5))) == len(trade_off.log)


def test_offsets_of_other_edits_are_one_line(trade_off, tmp_path):
    last, offsets = trade_off.log.iterations[-1], trade_off.offsets.iterations[0]
    trade_off.log.save(tmp_path / "edit_log.safetensors", {})
    EditLog((last, offsets[1:])).save(tmp_path / "trade_off.safetensors", {})
    with pytest.raises(InputError, match="has offsets of other edits; write the folder again"):
        TradeOff.load(tmp_path)


@pytest.mark.parametrize(
    ("preference", "weight"), [("balanced", 0.5), ("Safe", 0.8), ("helpful", 0.2), ("0.7", 0.7), (1, 1.0)]
)
def test_a_preference_is_a_word_or_a_weight(preference, weight):
    assert weight_of(preference) == weight


@pytest.mark.parametrize("preference", ["secure", "-0.1", "1.5", "nan", "", True, [0.5], {}])
def test_any_other_preference_is_one_line(preference):
    with pytest.raises(InputError, match="prefer: is .*; choose helpful, balanced, safe, or a weight from 0 to 1"):
        weight_of(preference)
