"""Divergence, noise and exchanges: zero for the same weights, and what a plain computation gives for others."""

import numpy
import pytest
import torch
from test_alignment import weights_of

from llmva.engines.greedy import respond
from llmva.measures.divergence import Divergence
from llmva.models.activations import Capture
from llmva.models.chat_model import encode_chats, load_model
from llmva.models.reading import read_activations
from llmva.study.ablations import noised


@pytest.fixture
def exchanges(llama, prompts):
    return prompts, respond(llama, prompts, max_new_tokens=6, batch_size=5).texts


def plainly(first, second, prompts, replies):
    """One exchange at a time, without padding."""
    parts = []
    for prompt, reply in zip(prompts, replies, strict=True):
        head = encode_chats(first.tokenizer, [prompt])[0]
        tail = first.tokenizer(reply, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = [model.model(torch.tensor([head + tail])).logits[0, len(head) - 1 :] for model in (first, second)]
        before, after = (values.log_softmax(-1) for values in logits)
        parts.append((before.exp() * (before - after)).sum(-1))
    return float(torch.cat(parts).mean())


def test_a_model_does_not_diverge_from_itself(llama, exchanges):
    assert Divergence(llama, *exchanges, batch_size=2).measure(llama) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_divergence_is_the_mean_over_tokens_whatever_the_batch(family_folders, llama, exchanges, batch_size):
    other = load_model(str(family_folders["llama"]))
    with noised(other.model, 0.5, seed=1):
        measured = Divergence(llama, *exchanges, batch_size=batch_size)
        expected = plainly(llama, other, *exchanges)
        assert expected > 1e-4
        # Twice, since the second time reads what the first one kept.
        assert [measured.measure(other) for _ in range(2)] == pytest.approx([expected] * 2, rel=1e-3)


def test_a_reference_too_large_to_keep_is_asked_again(llama, exchanges, monkeypatch):
    kept = Divergence(llama, *exchanges, batch_size=2)
    with noised(llama.model, 0.5, seed=1):
        pass
    monkeypatch.setattr("llmva.measures.divergence.MAX_KEPT_LOGITS", 0)
    asked = Divergence(llama, *exchanges, batch_size=2)
    assert asked.measure(llama) == kept.measure(llama)


def test_without_exchanges_there_is_no_divergence(llama):
    assert numpy.isnan(Divergence(llama, [], [], batch_size=2).measure(llama))


def test_noise_comes_off_bit_for_bit_and_grows_with_its_level(llama):
    before = weights_of(llama)
    sizes = []
    for level in (0.0, 0.5, 1.0):
        with noised(llama.model, level, seed=3):
            now = weights_of(llama)
            sizes.append(sum(float((now[name] - before[name]).norm()) for name in before))
    assert sizes[0] == 0 < sizes[1] < sizes[2]
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(llama).items())


def test_exchange_activations_are_those_of_the_whole_text(family_model, prompts):
    replies = ["sure, here is what you asked for.", "no", "i am sorry, but no.", "", "please repeat"]
    capture = Capture(inputs=True, positions="all")
    options = {"capture": capture, "batch_size": 2}
    whole = read_activations(family_model, prompts, replies, **options)
    part = read_activations(family_model, prompts, replies, tokens="reply", **options)
    heads = encode_chats(family_model.tokenizer, prompts)
    tails = [family_model.tokenizer(reply, add_special_tokens=False)["input_ids"] for reply in replies]
    assert whole.lengths.tolist() == [len(a) + len(b) for a, b in zip(heads, tails, strict=True)]
    assert part.lengths.tolist() == [len(tail) for tail in tails]
    ends, starts = whole.lengths.cumsum(), 0
    for end, count, length in zip(ends, part.lengths, whole.lengths, strict=True):
        own = part.inputs["mlp.01"][starts : starts + count]
        numpy.testing.assert_allclose(own, whole.inputs["mlp.01"][end - count : end], atol=2e-5)
        starts, _ = starts + count, length


def test_a_forced_opening_is_part_of_the_reply_and_changes_what_follows(llama, prompts):
    opened = respond(llama, prompts, max_new_tokens=4, batch_size=3, openings=["sure,"] * 5).texts
    assert all(text.startswith("sure,") for text in opened)
    plain = respond(llama, prompts, max_new_tokens=4, batch_size=3, openings=[""] * 5).texts
    assert plain == respond(llama, prompts, max_new_tokens=4, batch_size=3).texts
