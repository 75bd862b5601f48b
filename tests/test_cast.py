"""CAST: the condition fires on planted rows alone, the rest stays bit for bit, and nothing is left behind."""

import numpy
import pytest
import torch
from test_alignment import weights_of
from test_scans import block_inputs, decode, hooks_of, padded, training_of

from llmva.engines.greedy import respond
from llmva.models.chat_model import encode_chats, load_model
from llmva.steering.baselines import cast
from llmva.steering.baselines.cast import (
    Cast,
    best_condition,
    condition_similarity,
    frequent_openings,
    oriented_component,
)

PLANTED = 3  # The dimension that the tokens of toxic prompts are given more of.


@pytest.fixture(scope="module")
def model(family_folders):
    """A random Llama to which the tokens of toxic prompts alone are marked."""
    chat_model = load_model(str(family_folders["llama"]))
    rows = training_of(chat_model).rows
    tokens = [set(ids) for ids in encode_chats(chat_model.tokenizer, rows["prompt"])]
    toxic, benign = (
        [ids for ids, label in zip(tokens, rows["label"], strict=True) if label == wanted]
        for wanted in ("toxic", "benign")
    )
    marks = set.intersection(*toxic) - set.union(*benign)
    assert marks
    embedding = chat_model.model.get_input_embeddings().weight.data
    embedding[sorted(marks), PLANTED] += 30 * embedding.norm(dim=1).mean()
    return chat_model


@pytest.fixture(scope="module")
def fitted(model):
    method = Cast()
    method.fit(training_of(model))
    assert method.outcome == "fitted"
    return method


@pytest.fixture(scope="module")
def rows(model):
    """Six training prompts, toxic ones first, of different lengths."""
    table = training_of(model).rows
    return [*table["prompt"][:3], *table["prompt"][-3:]]


def prompt_means(training):
    return training.read(training.rows["prompt"].tolist(), positions="mean")


def setting_at(method, share, **others):
    """A setting of the condition at a site that finds toxic prompts."""
    vectors, training = method.condition_vectors, training_of(others.pop("model"))
    site = round(share * len(method.steps))
    means = prompt_means(training)[site]
    found = best_condition(cast._similarities(means, vectors[site]), training.benign == -1)
    assert found.pop("f1") == 1
    return {"condition_site": share, **found, "span": "all", "strength": 0.8, **others}


# The parts


def test_the_similarity_is_the_published_one_and_blind_to_the_sign_and_length_of_the_condition_vector():
    generator = numpy.random.default_rng(0)
    states, vector = generator.normal(size=(6, 8)), generator.normal(size=8)
    projected = numpy.tanh(states @ (numpy.outer(vector, vector) / (vector @ vector)).T)
    wanted = (states * projected).sum(1) / numpy.linalg.norm(states, axis=1) / numpy.linalg.norm(projected, axis=1)
    for factor in (1, -1, 20):
        found = condition_similarity(torch.from_numpy(states), torch.from_numpy(factor * vector))
        numpy.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9)
    assert condition_similarity(torch.tensor([[0.0, 1.0]]), torch.tensor([1.0, 0.0])).tolist() == [0.0]


@pytest.mark.parametrize("turned", [1, -1])
def test_a_planted_direction_is_found_with_the_sign_of_most_pairs(turned):
    generator = numpy.random.default_rng(0)
    direction = turned * numpy.eye(16)[3]
    strengths = numpy.where(numpy.arange(100) < 80, 1.0, -1.0)
    found = oriented_component(0.05 * generator.normal(size=(100, 16)) + strengths[:, None] * direction)
    assert found @ direction > 0.99 and numpy.linalg.norm(found) == pytest.approx(1)


def test_pairs_that_do_not_differ_give_no_direction_instead_of_nan():
    assert not oriented_component(numpy.zeros((4, 8))).any()


@pytest.mark.parametrize("fires_when", ["below", "above"])
def test_the_condition_finds_a_planted_threshold_and_its_side(fires_when):
    wanted = numpy.arange(50) < 20
    similarities = numpy.where(wanted == (fires_when == "above"), 0.7, 0.3) + numpy.linspace(-0.01, 0.01, 50)
    found = best_condition(similarities, wanted)
    assert found["fires_when"] == fires_when and found["f1"] == 1
    assert found["threshold"] == pytest.approx(0.5, abs=0.02)


def test_openings_are_the_most_frequent_first_words_of_each_side_and_shared_ones_belong_to_one(model):
    training = training_of(model)
    training.rows["response"] = ["", "as i said before", *["i am sorry, but no."] * 3] * 4 + ["as i said now"] * 4
    labels = ["refused"] * 20 + ["answered"] * 4
    training.rows["verdict"] = [label if index != 2 else "answered" for index, label in enumerate(labels)]
    refusing, answering = frequent_openings(training)
    assert refusing == ["i am sorry,"] and answering == []


# The method


def test_the_planted_direction_is_the_condition_vector(fitted):
    assert abs(fitted.condition_vectors[0][PLANTED]) > 0.9


def test_the_planted_prompts_are_told_apart_by_the_conditions_of_both_signs(fitted):
    for sign in (1, -1):
        assert [condition["f1"] for condition in fitted.conditions[sign]] == [1.0] * len(fitted.conditions[sign])
    sides = [fitted.conditions[sign][0] for sign in (1, -1)]
    assert {side["fires_when"] for side in sides} == {"below", "above"}


def test_the_behaviour_vector_points_from_answering_to_refusing_openings(fitted, model):
    training = training_of(model)
    for site, differences in cast._contrasts(training).items():
        along = differences @ fitted.steps[site]
        assert (along > 0).mean() > 0.5
        mean_norm = numpy.linalg.norm(training.residuals[site], axis=1).mean()
        assert numpy.linalg.norm(fitted.steps[site]) == pytest.approx(mean_norm, rel=1e-5)


@pytest.mark.parametrize("sign, moved", [(1, [True] * 3 + [False] * 3), (-1, [False] * 3 + [True] * 3)])
def test_settings_push_toxic_rows_towards_refusing_and_benign_rows_towards_answering(fitted, model, rows, sign, moved):
    setting = next(setting for setting in fitted.search_space(43) if setting["strength"] * sign > 0)
    options = {"output_logits": True, "return_dict_in_generate": True}
    plain = decode(model, padded(model, rows), True, **options).logits[1]
    with fitted.applied(model, setting):
        steered = decode(model, padded(model, rows), True, **options).logits[1]
    assert (steered != plain).any(1).tolist() == moved


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_similarity_while_answering_is_that_of_training_and_is_read_once(
    fitted, model, rows, monkeypatch, use_cache
):
    read, compare = [], cast.condition_similarity
    setting = setting_at(fitted, 0.5, model=model)
    means = prompt_means(training_of(model))[1][[0, 1, 2, -3, -2, -1]]
    wanted = compare(torch.from_numpy(means), torch.from_numpy(fitted.condition_vectors[1]))
    monkeypatch.setattr(cast, "condition_similarity", lambda *given: read.append(compare(*given)) or read[-1])
    with fitted.applied(model, setting):
        decode(model, padded(model, rows), use_cache)
    (found,) = read
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("use_cache", [True, False])
def test_the_condition_fires_on_planted_rows_only_and_other_rows_stay_bit_for_bit(
    fitted, model, rows, share, use_cache
):
    options = {"output_logits": True, "return_dict_in_generate": True}
    batch = padded(model, rows)
    plain = decode(model, batch, use_cache, **options)
    with fitted.applied(model, setting_at(fitted, share, model=model)):
        steered = decode(model, batch, use_cache, **options)
    for before, after in zip(plain.logits, steered.logits, strict=True):
        assert torch.equal(before[3:], after[3:])
        assert not torch.isclose(before[:3], after[:3]).all(1).any()
    assert torch.equal(plain.sequences[3:], steered.sequences[3:])


def test_the_step_is_added_at_all_prompt_positions_but_padding_and_at_generated_ones(fitted, model, rows):
    batch = padded(model, rows)
    plain, _ = block_inputs(model, 0, fitted, {"strength": 0.0}, batch)
    seen, _ = block_inputs(model, 0, fitted, setting_at(fitted, 0.0, model=model), batch)
    step = 0.8 * torch.from_numpy(fitted.steps[0])
    where = batch["attention_mask"].bool() & (torch.arange(6) < 3)[:, None]
    torch.testing.assert_close(seen[0] - plain[0], where[..., None] * step, rtol=0, atol=1e-5)
    # The first generated token is steered too; its unsteered state is its embedding.
    with torch.no_grad():
        tokens = decode(model, batch, True)
    assert len(seen) == len(plain) == tokens.shape[1] - batch["input_ids"].shape[1]
    torch.testing.assert_close((seen[1] - plain[1])[3:], torch.zeros(3, 1, len(step)))


def test_blocks_before_the_condition_miss_the_prefill_and_are_steered_while_decoding(fitted, model, rows, monkeypatch):
    marked = []
    add = cast.add_where
    monkeypatch.setattr(cast, "add_where", lambda *given: marked.append(given[1].sum(1).tolist()) or add(*given))
    lengths = padded(model, rows)["attention_mask"].sum(1).tolist()
    for use_cache in (True, False):
        marked.clear()
        with fitted.applied(model, setting_at(fitted, 0.5, model=model)):
            decode(model, padded(model, rows), use_cache)
        # In the prefill block 1 alone, which holds the condition; then block 0 and block 1 in turn.
        assert marked[0] == [*lengths[:3], 0, 0, 0]
        assert marked[1::2] == [[1 if use_cache else number] * 3 + [0] * 3 for number in range(1, 6)]
        later = [[1 if use_cache else length + number for length in lengths[:3]] + [0] * 3 for number in range(1, 6)]
        assert marked[2::2] == later


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_cached_decoding_equals_uncached_decoding(fitted, model, rows, share):
    batch = padded(model, rows)
    plain = decode(model, batch, True)
    with fitted.applied(model, setting_at(fitted, share, model=model)):
        cached, uncached = decode(model, batch, True), decode(model, batch, False)
        # A batch of another size follows, on which the last decision must not rest.
        fewer = decode(model, padded(model, rows[2:4]), True)
    assert cached.tolist() == uncached.tolist() != plain.tolist()
    assert fewer[:, -6:].tolist() == cached[2:4, -6:].tolist()


def test_padding_and_neighbours_do_not_matter_in_any_family(family_model):
    training = training_of(family_model)
    method = Cast()
    method.fit(training)
    texts = [*training.rows["prompt"][:3], *training.rows["prompt"][-2:]]
    with method.applied(family_model, {**method.search_space(2)[1], "span": "all", "strength": 0.6}):
        together = respond(family_model, texts, max_new_tokens=5, batch_size=5).texts
        alone = respond(family_model, texts, max_new_tokens=5, batch_size=1).texts
    assert together == alone


def test_nothing_is_left_after_the_block_even_after_an_error(fitted, model, rows):
    before, texts = weights_of(model), respond(model, rows, max_new_tokens=5, batch_size=6).texts
    with pytest.raises(RuntimeError), fitted.applied(model, setting_at(fitted, 0.5, model=model)):
        steered = respond(model, rows, max_new_tokens=5, batch_size=6).texts
        raise RuntimeError("even after an error")
    assert not hooks_of(model)
    assert all(torch.equal(weight, before[key]) for key, weight in model.model.state_dict().items())
    assert respond(model, rows, max_new_tokens=5, batch_size=6).texts == texts != steered


def test_strength_zero_changes_nothing_and_hooks_nothing(fitted, model):
    with fitted.applied(model, setting_at(fitted, 0.5, model=model, strength=0.0)):
        assert not hooks_of(model)


@pytest.mark.parametrize("trials", [1, 2, 9, 43])
def test_the_search_space_uses_the_whole_budget_and_has_the_unsteered_model(fitted, trials):
    settings = fitted.search_space(trials)
    assert len(settings) == trials and settings[0] == {"strength": 0.0}
    assert len({tuple(setting.values()) for setting in settings}) == trials
    if trials == 43:
        assert len({setting["condition_site"] for setting in settings[1:]}) == 2
        # Toxic rows are pushed towards refusing and benign ones towards answering: at a site, on either side.
        sides = {(setting["condition_site"], setting["fires_when"]) for setting in settings if setting["strength"] > 0}
        other = {(setting["condition_site"], setting["fires_when"]) for setting in settings if setting["strength"] < 0}
        assert sides and other and not sides & other


@pytest.mark.parametrize(
    "columns, outcome",
    [
        ({"label": "toxic"}, "one class"),
        ({"verdict": "answered"}, "one class"),
        ({"verdict": "degenerate"}, "one class"),
    ],
)
def test_one_class_is_a_recorded_outcome(model, columns, outcome):
    method = Cast()
    training = training_of(model, **columns)
    training.rows["response"] = training.rows["response"].fillna("")
    method.fit(training)
    assert method.outcome == outcome and method.search_space(43) == [{"strength": 0.0}]
    with method.applied(model, {"strength": 0.0}):
        assert not hooks_of(model)


def test_refusals_that_open_like_answers_are_a_recorded_outcome(model):
    training = training_of(model)
    training.rows["response"] = "i am what i am"
    method = Cast()
    method.fit(training)
    assert method.outcome == "refusals open like answers" and method.search_space(43) == [{"strength": 0.0}]
