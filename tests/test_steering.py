"""The protocol: what every method promises, and tuning."""

import json

import pandas
import pytest
import torch
from test_alignment import examiner_of, weights_of

from llmva.edits.log import EditLog
from llmva.engines.greedy import respond
from llmva.steering.base import TrainingData
from llmva.steering.llm_va import LlmVa
from llmva.steering.original import Original
from llmva.steering.registry import METHODS
from llmva.steering.search import tune

VERDICTS = ("answered", "refused", "answered", "degenerate", "refused")


def training_of(chat_model, prompts, verdicts=VERDICTS, labels=("benign", "benign", "toxic", "toxic", "toxic")):
    """Return training data with planted verdicts: the responses are a random model's."""
    texts = respond(chat_model, prompts, max_new_tokens=4, batch_size=5).texts
    rows = pandas.DataFrame({"id": range(len(prompts)), "label": labels, "prompt": prompts, "response": texts})
    rows["dataset"] = rows["label"].map({"benign": "nq", "toxic": "seval_risk"})
    return TrainingData(chat_model, rows.assign(verdict=verdicts), ("what is a rope for?", "name a colour"), 5, 0)


def replies_of(chat_model, prompts):
    return respond(chat_model, prompts, max_new_tokens=5, batch_size=5).texts


@pytest.fixture(params=[*METHODS, "LLM-VA"])
def fitted(request, llama, prompts):
    """Each method in turn, fitted to a random Llama."""
    method = LlmVa(EditLog()) if request.param == "LLM-VA" else METHODS[request.param]()
    method.fit(training_of(llama, prompts))
    return method


def test_no_method_leaves_a_trace_and_none_changes_anything_in_its_first_setting(llama, fitted, prompts):
    before, texts = weights_of(llama), replies_of(llama, prompts)
    settings = fitted.search_space(3)
    with fitted.applied(llama, settings[0]):
        assert replies_of(llama, prompts) == texts
    with pytest.raises(RuntimeError), fitted.applied(llama, settings[-1]):
        raise RuntimeError("even after an error")
    assert all(torch.equal(weight, before[key]) for key, weight in llama.model.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in llama.model.modules())
    assert replies_of(llama, prompts) == texts


@pytest.mark.parametrize("trials", [1, 9])
def test_settings_are_flat_json_all_different_and_within_the_budget(fitted, trials):
    settings = fitted.search_space(trials)
    assert 1 <= len(settings) <= trials
    assert len({json.dumps(setting, sort_keys=True) for setting in settings}) == len(settings)
    assert json.loads(json.dumps(settings)) == settings
    assert not any(isinstance(value, dict | list) for setting in settings for value in setting.values())


def test_every_method_says_whether_it_trains_and_whether_it_hooks(fitted):
    assert isinstance(fitted.finetunes, bool) and isinstance(fitted.hooks, bool)
    assert fitted.name in {*METHODS, "LLM-VA"}


def test_every_method_says_what_came_of_fitting(fitted):
    assert fitted.outcome == ("nothing to fit" if fitted.name in {"Original", "LLM-VA"} else "fitted")
    assert type(fitted).outcome == ("nothing to fit" if fitted.name in {"Original", "LLM-VA"} else "not fitted")


def test_tuning_keeps_the_best_setting_and_the_earliest_on_a_tie(llama, prompts, monkeypatch):
    tuned = tuned_by(llama, prompts, monkeypatch, [0.3, 0.7, 0.7, 0.1], [{"number": number} for number in range(4)])
    assert tuned.setting == {"number": 1} and tuned.trials["strict_f1"].tolist() == [0.3, 0.7, 0.7, 0.1]
    assert tuned.variants == {}


def test_tuning_also_keeps_the_best_of_each_variant(llama, prompts, monkeypatch):
    settings = [{"variant": variant, "number": number} for variant in "ab" for number in range(2)]
    tuned = tuned_by(llama, prompts, monkeypatch, [0.3, float("nan"), 0.2, 0.2], settings)
    assert tuned.setting == {"variant": "a", "number": 0}
    assert tuned.variants == {"a": {"variant": "a", "number": 0}, "b": {"variant": "b", "number": 0}}


def tuned_by(chat_model, prompts, monkeypatch, scores, settings):
    from llmva.steering import search

    left = iter(scores)
    monkeypatch.setattr(search, "measure", lambda rows: {"strict_f1": next(left)})

    class Several(Original):
        def search_space(self, trials):
            return settings

    validation = training_of(chat_model, prompts).rows.drop(columns=["verdict", "response"])
    return tune(Several(), examiner_of(chat_model), validation, trials=len(settings))
