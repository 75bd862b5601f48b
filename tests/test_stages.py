"""The stages of a study: computed once, found again without a model, and anew when what they rest on changes."""

import pandas
import pytest
from conftest import prompt_table, save_random_model
from test_alignment import DigestJudge

from llmva import paths
from llmva.params import StudyParams, load_params
from llmva.readers import chosen_l_select, read_log, read_test_rows
from llmva.stages import (
    collect_prompts,
    compare_solvers,
    evaluate_method,
    evaluate_methods,
    finish_results,
    observe_original,
    probe_layers,
    run_alignment,
)
from llmva.steering import METHODS, LlmVa
from llmva.study import Study


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A random model, two made-up sets, and a judge that finds both classes."""
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr("llmva.study.PhraseJudge", DigestJudge)
    monkeypatch.setattr("llmva.degeneracy.is_looping", lambda reply: False)
    monkeypatch.setattr("llmva.degeneracy.is_empty", lambda reply: False)
    save_random_model(tmp_path / "model")
    prompt_table(60).to_csv(tmp_path / "prompts.csv", index=False)
    return tmp_path


def study_of(world, **changes):
    values = load_params("tiny-llama").model_dump() | {
        "slug": "toy",
        "model": str(world / "model"),
        "judge": "phrases",
        "data": str(world / "prompts.csv"),
        "threads": 1,
        "max_new_tokens": 4,
        "pool_size": 40,
        "sample_per_dataset": 16,
        "iterations": 2,
        "l_select_candidates": [2, 3, 99],
        "probe_iterations": 1,
        "null_draws": 3,
    }
    return Study(StudyParams.checked(values | changes))


def run_all(study):
    stages = [collect_prompts(study), observed := observe_original(study), compare_solvers(study, observed)]
    stages += [probed := probe_layers(study), aligned := run_alignment(study, chosen_l_select(probed)["l_select"])]
    log, chosen = read_log(aligned)
    evaluated = evaluate_methods(study)
    setting = {"iteration": chosen["best_iteration"]}
    evaluated["LLM-VA"] = evaluate_method(study, LlmVa(log), setting=setting, upstream=(aligned,))
    return [*stages, *evaluated.values(), finish_results(study, evaluated)]


def test_a_second_run_finds_everything_without_loading_a_model(world, monkeypatch):
    first = run_all(study_of(world))
    assert not any(stage.hit for stage in first)
    monkeypatch.setattr("llmva.study.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    second = run_all(study_of(world))
    assert all(stage.hit for stage in second)
    assert [stage.key for stage in first] == [stage.key for stage in second]


def test_two_runs_from_nothing_write_the_same_bytes(world, monkeypatch):
    def digests():
        return [stage.manifest["files"] for stage in run_all(study_of(world))]

    first = digests()
    monkeypatch.setattr(paths, "RUNS", world / "elsewhere")
    assert digests() == first


def test_more_candidates_than_sublayers_count_as_all(world):
    study = study_of(world)
    collect_prompts(study)
    probed = probe_layers(study)
    assert chosen_l_select(probed)["sublayers"] == 4
    assert set(pandas.read_csv(probed / "probes.csv")["l_select"]) == {2, 3, 4}


@pytest.mark.parametrize("column", ["label", "group"])
def test_other_labels_or_groups_are_another_pool(world, column):
    key = collect_prompts(study_of(world)).key
    table = pandas.read_csv(world / "prompts.csv")
    table.loc[0:3, column] = {"label": "benign", "group": "one"}[column]
    table.to_csv(world / "prompts.csv", index=False)
    assert collect_prompts(study_of(world)).key != key


def test_other_weights_are_another_study(world):
    key = collect_prompts(study_of(world)).key
    save_random_model(world / "model", seed=5)
    assert collect_prompts(study_of(world)).key != key


def test_every_method_answers_the_same_test_prompts(world):
    study = study_of(world)
    collect_prompts(study)
    evaluated = evaluate_methods(study)
    assert list(evaluated) == list(METHODS)
    for stage in evaluated.values():
        assert read_test_rows(study, stage)["id"].tolist() == study.test["id"].tolist()
    trials = pandas.read_csv(evaluated["VectorSteer"] / "trials.csv")
    assert len(trials) == study.trials == 1 + 3 * 1 + 2 - 1


def test_the_pool_is_needed_first(world):
    from llmva.errors import InputError

    with pytest.raises(InputError, match="run notebook 00"):
        observe_original(study_of(world))
