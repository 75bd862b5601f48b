"""VectorSteer: planted directions are found, steps land where they should, and the model comes back as it was."""

import numpy
import pytest
import torch
from test_alignment import weights_of
from test_steering import replies_of, training_of

from llmva.engines.greedy import respond
from llmva.models.chat_model import encode_chats
from llmva.steering.baselines.vector_steer import (
    VARIANTS,
    VectorSteer,
    draw_pairs,
    relative_difference,
    relative_reading,
)

EVERYWHERE = [{"variant": variant, "span": "all", "strength": 0.8} for variant in VARIANTS]


@pytest.fixture
def steer(llama, prompts):
    method = VectorSteer()
    method.fit(training_of(llama, prompts))
    return method


@pytest.fixture
def planted():
    """Rows that differ by class along the fourth axis, and rows of no class far away."""
    generator = numpy.random.default_rng(0)
    labels = numpy.repeat([1, -1, 0], (100, 40, 100))
    rows = generator.normal(size=(240, 16)) * 0.1 + 4 * labels[:, None] * numpy.eye(16)[3]
    rows[labels == 0] += 100
    return rows.astype(numpy.float32), labels


def test_a_planted_difference_is_found_again(planted):
    rows, labels = planted
    found = relative_difference(rows, labels)
    assert found[3] / numpy.linalg.norm(found) > 0.999
    assert numpy.linalg.norm(found) == pytest.approx(numpy.linalg.norm(rows, axis=1).mean(), rel=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_a_planted_reading_vector_is_found_again_with_its_sign(planted, seed):
    rows, labels = planted
    found, opposite = (relative_reading(rows, *draw_pairs(sign * labels, seed)) for sign in (1, -1))
    assert found[3] / numpy.linalg.norm(found) > 0.999
    assert opposite[3] / numpy.linalg.norm(opposite) < -0.999
    assert numpy.linalg.norm(found) == pytest.approx(numpy.linalg.norm(rows, axis=1).mean(), rel=1e-5)


def test_without_the_flips_recentring_deletes_the_reading_vector(planted):
    rows, labels = planted
    answered, refused, flips = draw_pairs(labels, seed=0)
    found = relative_reading(rows, answered, refused, numpy.ones_like(flips))
    assert abs(found[3]) / numpy.linalg.norm(found) < 0.7


def test_a_tie_between_the_signs_still_gives_a_vector():
    rows = numpy.array([[1, 0], [0, 0], [-1, 0], [0, 0]], dtype=numpy.float32)
    found = relative_reading(rows, numpy.array([0, 2]), numpy.array([1, 3]), numpy.array([1, 1]))
    assert abs(found[0]) == pytest.approx(0.5) and found[1] == 0


def test_equal_rows_give_no_vector_instead_of_nan():
    rows, labels = numpy.ones((4, 8), dtype=numpy.float32), numpy.array([1, 1, -1, -1])
    assert not relative_difference(rows, labels).any()
    assert not relative_reading(rows, *draw_pairs(labels, seed=0)).any()


def test_pairs_take_in_every_row_of_both_classes_and_depend_on_the_seed_alone(planted):
    _, labels = planted
    answered, refused, flips = draw_pairs(labels, seed=0)
    assert set(answered) == set(numpy.flatnonzero(labels == 1)) and set(refused) == set(numpy.flatnonzero(labels == -1))
    assert set(flips) == {1, -1} and len(answered) == len(refused) == len(flips) == 100
    again, other = draw_pairs(labels, seed=0), draw_pairs(labels, seed=1)
    assert all(map(numpy.array_equal, (answered, refused, flips), again))
    assert not numpy.array_equal(flips, other[2])


def test_the_mean_difference_is_added_at_block_inputs_to_prompts_and_to_no_decoding_step(llama, steer):
    def watch(seen):
        return llama.blocks[1].register_forward_pre_hook(
            lambda _, inputs, options: seen.append(inputs[0].clone()), with_kwargs=True
        )

    prefill, *steps = moves_of(llama, steer, watch, {"variant": "mean difference", "span": "late", "strength": 0.5})
    expected = 0.5 * steer.steps["mean difference"][1]
    numpy.testing.assert_allclose(prefill, numpy.broadcast_to(expected, prefill.shape), atol=1e-5)
    assert expected.any() and len(steps) > 1 and not any(step.any() for step in steps)


def test_the_reading_vector_is_added_at_block_outputs_to_all_positions(llama, steer):
    def watch(seen):
        return llama.blocks[1].register_forward_hook(
            lambda _, inputs, output: seen.append((output[0] if isinstance(output, tuple) else output).clone())
        )

    moves = moves_of(llama, steer, watch, {"variant": "reading vector", "span": "late", "strength": -0.5})
    expected = -0.5 * steer.steps["reading vector"][2]
    assert expected.any() and len(moves) > 2
    for moved in moves:
        numpy.testing.assert_allclose(moved, numpy.broadcast_to(expected, moved.shape), atol=1e-5)


def moves_of(chat_model, steer, watch, setting):
    """Return what steering added in each pass. Hooks run in the order they were attached."""
    before, after = [], []
    early = watch(before)
    with steer.applied(chat_model, setting):
        late = watch(after)
        chat_model.model.generate(torch.tensor([[1, 4, 9, 8]]), min_new_tokens=4, max_new_tokens=4, do_sample=False)
        late.remove()
    early.remove()
    return [(steered - plain).numpy() for steered, plain in zip(after, before, strict=True)]


@pytest.mark.parametrize("setting", EVERYWHERE, ids=VARIANTS)
def test_cached_decoding_equals_uncached_decoding(llama, steer, prompts, setting):
    encoded = {"input_ids": encode_chats(llama.tokenizer, prompts)}
    batch = llama.tokenizer.pad(encoded, return_tensors="pt")
    assert not batch["attention_mask"].all()
    with steer.applied(llama, setting):
        cached, uncached = (
            llama.model.generate(**batch, min_new_tokens=6, max_new_tokens=6, do_sample=False, use_cache=use_cache)
            for use_cache in (True, False)
        )
    assert cached.tolist() == uncached.tolist()


@pytest.mark.parametrize("setting", EVERYWHERE, ids=VARIANTS)
def test_padding_and_neighbours_do_not_matter(llama, steer, prompts, setting):
    plain = replies_of(llama, prompts)
    with steer.applied(llama, setting):
        together = replies_of(llama, prompts)
        alone = [respond(llama, [prompt], max_new_tokens=5, batch_size=1).texts[0] for prompt in prompts]
    assert together == alone and together != plain


@pytest.mark.parametrize("setting", EVERYWHERE, ids=VARIANTS)
def test_every_family_is_steered_and_comes_back(family_model, prompts, setting):
    method = VectorSteer()
    method.fit(training_of(family_model, prompts))
    before, plain = weights_of(family_model), replies_of(family_model, prompts)
    with pytest.raises(RuntimeError), method.applied(family_model, setting):
        assert replies_of(family_model, prompts) != plain
        raise RuntimeError("even after an error")
    with method.applied(family_model, {**setting, "strength": 0.0}):
        assert replies_of(family_model, prompts) == plain
    assert all(torch.equal(weight, before[key]) for key, weight in family_model.model.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in family_model.model.modules())


@pytest.mark.parametrize("trials", [1, 2, 9, 43])
def test_the_search_space_uses_the_whole_budget_for_both_variants(steer, trials):
    settings = steer.search_space(trials)
    assert len(settings) == trials
    assert settings[0] == {"variant": "mean difference", "strength": 0.0}
    assert len({tuple(setting.values()) for setting in settings}) == trials
    of_variant = [[setting for setting in settings if setting["variant"] == variant] for variant in VARIANTS]
    assert 0 <= len(of_variant[0]) - len(of_variant[1]) <= 1
    for mine in filter(None, of_variant):
        assert mine[0]["strength"] == 0
    if trials == 43:
        for mine in of_variant:
            assert {numpy.sign(setting["strength"]) for setting in mine} == {-1, 0, 1}
            # Of two blocks the middle is the late one.
            assert {setting.get("span") for setting in mine} == {None, "all", "early", "middle"}


def test_one_class_of_verdicts_is_a_named_outcome(llama, prompts):
    method = VectorSteer()
    method.fit(training_of(llama, prompts, verdicts="answered"))
    assert method.outcome == "one class"
    setting, *others = method.search_space(43)
    assert all(other["strength"] == 0 for other in others)
    texts = replies_of(llama, prompts)
    with method.applied(llama, setting):
        assert replies_of(llama, prompts) == texts
