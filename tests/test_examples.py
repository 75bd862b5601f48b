"""The examples that the site walks through: a method, a data set and a model of one's own, each as it stands there."""

import sys

import numpy
import pytest
from test_alignment import examiner_of, weights_of
from test_steering import replies_of, training_of

from llmva.core.params import StudyParams
from llmva.core.paths import ROOT
from llmva.core.yaml_files import read_yaml
from llmva.prompts.pools import assign_splits
from llmva.prompts.sets import read_prompts, require_every_split, require_two_classes
from llmva.steering.search import tune

EXAMPLES = ROOT / "tests" / "examples"


@pytest.fixture
def method(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    from mean_difference import MeanDifference

    return MeanDifference()


def test_the_method_moves_the_stream_along_the_difference_of_means(method, llama, prompts):
    training = training_of(llama, prompts)
    method.fit(training)
    rows, answered = training.residuals[1], training.answered
    wanted = rows[answered == 1].mean(0) - rows[answered == -1].mean(0)
    numpy.testing.assert_allclose(method.directions[1], wanted, rtol=1e-5)
    before, texts = weights_of(llama), replies_of(llama, prompts)
    with method.applied(llama, {"site": 1, "strength": 50.0}):
        assert replies_of(llama, prompts) != texts
    assert replies_of(llama, prompts) == texts and weights_of(llama).keys() == before.keys()
    with method.applied(llama, method.search_space(1)[0]):
        assert replies_of(llama, prompts) == texts


def test_the_method_is_tuned_as_every_other(method, llama, prompts):
    training = training_of(llama, prompts)
    method.fit(training)
    rows = training.rows.assign(id=[f"p{number}" for number in range(len(prompts))])
    tuned = tune(method, examiner_of(llama), rows[["id", "dataset", "label", "prompt"]], trials=4)
    assert len(tuned.trials) == 4 and tuned.setting in method.search_space(4)


def test_one_class_of_replies_is_nothing_to_fit(method, llama, prompts):
    method.fit(training_of(llama, prompts, verdicts=["answered"] * 5))
    assert method.outcome == "one class" and method.search_space(9) == [{"strength": 0.0}]


def test_the_data_set_is_read_with_its_groups_kinds_and_splits():
    table = read_prompts(EXAMPLES / "my_prompts.csv")
    require_two_classes(table, "example")
    assert table["category"].nunique() == 7 and table["group"].nunique() == 8
    splits = assign_splits(table, 0)
    assert splits.tolist() == table["split"].tolist()
    require_every_split(table.assign(split=splits), "example")


def test_the_model_s_parameters_are_whole():
    params = StudyParams.checked(read_yaml(EXAMPLES / "my-model.yaml"))
    assert params.slug == "my-model" and params.trials == 1 + 30 + 2 * 10
