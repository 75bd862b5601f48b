"""Continuous batching: the same replies and rows as `greedy`, an edit seen at once, and the judge that goes through."""

from dataclasses import replace
from functools import partial

import numpy
import pytest
import torch
from test_engines import ASKED, _edited, _require_same, asked, ending  # noqa: F401

from llmva.core.errors import InputError
from llmva.engines import continuous, greedy
from llmva.engines.choice import judge_engine
from llmva.judging.guard import GuardJudge
from llmva.models.activations import Capture

CAPTURES = [Capture(inputs=True, blocks=True), Capture(positions="all"), Capture(positions="mean", blocks=True)]


# Packed rows meet other neighbours in a product, which rounds otherwise.
require_alike = partial(_require_same, atol=1e-5)


@pytest.mark.parametrize("capture", CAPTURES)
def test_replies_and_rows_are_those_of_greedy(ending, asked, capture):  # noqa: F811
    expected = greedy.respond(ending, asked, **ASKED, capture=capture)
    require_alike(continuous.respond(ending, asked, **ASKED, capture=capture), expected)


def test_without_a_capture_and_with_openings(llama, prompts):
    for openings in (None, ["sure", "", "i am", "no", "sure"]):
        expected = greedy.respond(llama, prompts, **ASKED, openings=openings)
        found = continuous.respond(llama, prompts, **ASKED, openings=openings)
        assert found.texts == expected.texts and found.activations is None
    assert continuous.respond(llama, [], **ASKED).texts == []


def test_more_prompts_than_fit_into_the_cache_at_once(llama, prompts, monkeypatch):
    monkeypatch.setattr(continuous, "CPU_BLOCKS", 8)
    monkeypatch.setattr(continuous, "CPU_TOKENS", 40)
    many = [f"{prompt} {number}" for number in range(8) for prompt in prompts]
    expected = greedy.respond(llama, many, **ASKED, capture=Capture())
    require_alike(continuous.respond(llama, many, **ASKED, capture=Capture()), expected)


def test_an_edit_is_seen_at_once_and_so_is_its_end(llama, prompts):
    before = continuous.respond(llama, prompts, **ASKED, capture=Capture())
    with _edited(llama, seed=1):
        expected = greedy.respond(llama, prompts, **ASKED, capture=Capture())
        edited = continuous.respond(llama, prompts, **ASKED, capture=Capture())
    require_alike(edited, expected)
    assert not numpy.allclose(edited.activations.outputs["mlp.01"], before.activations.outputs["mlp.01"], atol=1e-3)
    require_alike(continuous.respond(llama, prompts, **ASKED, capture=Capture()), before)


def test_nothing_is_left_on_the_model(llama, prompts):
    attention = llama.model.config._attn_implementation
    continuous.respond(llama, prompts, **ASKED, capture=Capture(inputs=True))
    assert llama.model.config._attn_implementation == attention
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in llama.model.modules())


def test_an_error_in_the_thread_is_one_line(llama, prompts, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("too large")

    monkeypatch.setattr(llama.model, "forward", fail)
    with pytest.raises(InputError, match="continuous batching: .*; use another engine, or smaller batches"):
        continuous.respond(llama, prompts, **ASKED)


def test_a_judge_goes_through_the_engine_that_is_named(llama, prompts, monkeypatch):
    judged = GuardJudge(llama, 4).judge(prompts, ["sure"] * len(prompts))
    monkeypatch.setenv("LLMVA_JUDGE_ENGINE", "continuous")
    name, engine = judge_engine()
    through = replace(GuardJudge(llama, 4), engine=engine, engine_name=name)
    assert through.judge(prompts, ["sure"] * len(prompts)) == judged
    # Kernels may round otherwise, so what each said is remembered apart.
    assert through.name == f"{GuardJudge(llama, 4).name}:continuous"
    monkeypatch.setenv("LLMVA_JUDGE_ENGINE", "fast")
    with pytest.raises(InputError, match="LLMVA_JUDGE_ENGINE: is 'fast'; choose greedy, hugging_face, continuous"):
        judge_engine()
