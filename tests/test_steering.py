"""Methods: a planted direction is found, strengths mean what they say, and the model comes back as it was."""

import numpy
import pandas
import pytest
import torch
from test_alignment import examiner_of, weights_of

from llmva.edit_log import EditLog
from llmva.generation import respond
from llmva.steering import METHODS, LlmVa, Original, VectorSteer, tune
from llmva.steering.vector_steer import relative_difference


def test_a_planted_difference_is_found_again():
    generator = numpy.random.default_rng(0)
    direction = numpy.eye(16)[3]
    labels = numpy.repeat([1, -1, 0], 100)
    rows = generator.normal(size=(300, 16)) * 0.1 + 4 * labels[:, None] * direction
    rows[labels == 0] += 100  # Rows left out must not matter to the direction.
    found = relative_difference(rows.astype(numpy.float32), labels)
    assert found @ direction / numpy.linalg.norm(found) > 0.999
    assert numpy.linalg.norm(found) == pytest.approx(numpy.linalg.norm(rows, axis=1).mean(), rel=1e-5)


def test_equal_means_give_no_vector_instead_of_nan():
    assert not relative_difference(numpy.ones((4, 8), dtype=numpy.float32), numpy.array([1, 1, -1, -1])).any()


@pytest.fixture
def training(prompts):
    verdicts = ["answered", "refused", "answered", "degenerate", "refused"]
    return pandas.DataFrame(
        {"id": range(5), "dataset": "nq", "label": "benign", "prompt": prompts, "verdict": verdicts}
    )


@pytest.fixture
def steer(llama, training):
    method = VectorSteer()
    method.fit(llama, training, batch_size=5)
    return method


def test_the_step_is_added_to_every_prompt_position_of_the_span_and_to_no_decoding_step(llama, steer):
    seen = []
    hook = llama.blocks[1].register_forward_pre_hook(
        lambda _, inputs, options: seen.append(inputs[0].clone()), with_kwargs=True
    )
    plain = respond(llama, ["hi"], max_new_tokens=3, batch_size=1)
    start = len(seen)
    hook.remove()
    with steer.applied(llama, {"span": "late", "strength": 0.5}):
        # Hooks run in the order they were attached: this one sees the steered stream.
        hook = llama.blocks[1].register_forward_pre_hook(
            lambda _, inputs, options: seen.append(inputs[0].clone()), with_kwargs=True
        )
        respond(llama, ["hi"], max_new_tokens=3, batch_size=1)
        hook.remove()
    moved = (seen[start] - seen[0])[0]
    numpy.testing.assert_allclose(moved.numpy(), numpy.tile(0.5 * steer.steps[1], (len(moved), 1)), atol=1e-5)
    assert plain.texts == respond(llama, ["hi"], max_new_tokens=3, batch_size=1).texts


def test_cached_decoding_equals_uncached_decoding(llama, steer):
    with steer.applied(llama, {"span": "all", "strength": 0.8}):
        cached = llama.model.generate(torch.tensor([[1, 4, 9, 8]]), max_new_tokens=1, do_sample=False, use_cache=True)
        uncached = llama.model.generate(
            torch.tensor([[1, 4, 9, 8]]), max_new_tokens=1, do_sample=False, use_cache=False
        )
    assert cached.tolist() == uncached.tolist()


def test_padding_does_not_matter(llama, steer, prompts):
    with steer.applied(llama, {"span": "all", "strength": 0.8}):
        together = respond(llama, prompts, max_new_tokens=5, batch_size=5).texts
        alone = [respond(llama, [prompt], max_new_tokens=5, batch_size=1).texts[0] for prompt in prompts]
    assert together == alone


@pytest.mark.parametrize("name", [*METHODS, "LLM-VA"])
def test_no_method_leaves_a_trace(llama, steer, name, prompts):
    method = {"VectorSteer": steer, "Original": Original(), "LLM-VA": LlmVa(EditLog())}[name]
    before, texts = weights_of(llama), respond(llama, prompts, max_new_tokens=5, batch_size=5).texts
    with pytest.raises(RuntimeError), method.applied(llama, method.search_space(3)[-1]):
        raise RuntimeError("even after an error")
    assert all(torch.equal(weight, before[key]) for key, weight in llama.model.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in llama.model.modules())
    assert respond(llama, prompts, max_new_tokens=5, batch_size=5).texts == texts


@pytest.mark.parametrize("trials", [1, 2, 9, 43])
def test_the_search_space_uses_the_whole_budget_and_has_the_unsteered_model(steer, trials):
    settings = steer.search_space(trials)
    assert len(settings) == trials and settings[0]["strength"] == 0
    assert len({tuple(setting.values()) for setting in settings}) == trials
    if trials == 43:
        assert {numpy.sign(setting["strength"]) for setting in settings} == {-1, 0, 1}
        assert len({setting["span"] for setting in settings}) == 4


def test_one_class_of_verdicts_is_a_recorded_outcome(llama, training, prompts):
    method = VectorSteer()
    method.fit(llama, training.assign(verdict="answered"), batch_size=5)
    (setting,) = method.search_space(43)
    assert setting["outcome"] == "one class"
    texts = respond(llama, prompts, max_new_tokens=4, batch_size=5).texts
    with method.applied(llama, setting):
        assert respond(llama, prompts, max_new_tokens=4, batch_size=5).texts == texts


def test_tuning_keeps_the_best_setting_and_the_earliest_on_a_tie(llama, training, monkeypatch):
    from llmva.steering import base

    scores = iter([0.3, 0.7, 0.7, 0.1])
    monkeypatch.setattr(base, "measure", lambda rows: {"strict_f1": next(scores)})

    class Four(Original):
        def search_space(self, trials):
            return [{"number": number} for number in range(4)]

    tuned = tune(Four(), examiner_of(llama), training.drop(columns="verdict"), trials=4)
    assert tuned.setting == {"number": 1} and tuned.trials["strict_f1"].tolist() == [0.3, 0.7, 0.7, 0.1]
