"""Refusal ablation: the direction is found, leaves every residual of every family, and comes back."""

import json
from contextlib import ExitStack

import numpy
import pandas
import pytest
import torch
from conftest import prompt_table
from test_alignment import weights_of

from llmva.engines.greedy import respond
from llmva.models.activations import FINAL, Capture
from llmva.models.reading import read_activations
from llmva.steering.base import TrainingData
from llmva.steering.baselines.refusal_ablation import AFFINE, DEEPEST, DIRECTIONAL, RefusalAblation

FULL = {"variant": DIRECTIONAL, "site": 0.5, "strength": 1.0}


def training_of(chat_model, toxic="refused", benign="answered"):
    rows = prompt_table(12)
    rows["verdict"] = rows["label"].map({"toxic": toxic, "benign": benign})
    return TrainingData(chat_model, rows, (), batch_size=24, seed=0)


def fitted(chat_model):
    method = RefusalAblation()
    method.fit(training_of(chat_model))
    return method


def planted(residuals, labels, verdicts):
    rows = pandas.DataFrame({"id": range(len(labels)), "label": labels, "verdict": verdicts})
    training = TrainingData(None, rows, (), batch_size=1, seed=0)
    training.__dict__["residuals"] = residuals
    return training


def planted_training(depth=10, equal=(0,)):
    """Rows whose refused toxic and answered benign ones differ along axis 3, at all sites but the equal ones."""
    generator = numpy.random.default_rng(0)
    labels = ["toxic"] * 100 + ["benign"] * 100
    verdicts = (["refused"] * 50 + ["answered"] * 50) * 2
    rows = generator.normal(size=(200, 16)) * 0.1 + 7 * numpy.eye(16)[0]
    rows[:50, 3] += 4
    rows[150:, 3] += 100
    rows[50:100, 3] -= 100
    # The rows in between, jailbreaks and needless refusals, must not matter.
    verdicts[100:] = ["answered"] * 50 + ["refused"] * 50
    same = numpy.tile(rows[0], (200, 1)).astype(numpy.float32)
    residuals = {site: same if site in equal else rows.astype(numpy.float32) for site in range(depth + 1)}
    return planted(residuals, labels, verdicts)


def test_a_planted_direction_is_found_at_each_site_where_there_is_one():
    method = RefusalAblation()
    method.fit(planted_training())
    assert method.outcome == "fitted" and 0 not in method.directions
    for direction in method.directions.values():
        assert direction[3] > 0.999 and numpy.linalg.norm(direction) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("depth", [2, 6, 10, 32])
def test_sites_in_the_last_fifth_are_no_candidates(depth):
    method = RefusalAblation()
    method.fit(planted_training(depth))
    expected = [site for site in range(1, depth + 1) if site < DEEPEST * depth]
    assert list(method.directions) == expected and DEEPEST == 0.8


@pytest.mark.parametrize("positions", ["all", "last"])
def test_full_strength_leaves_no_component_in_any_residual_and_any_contribution(family_model, prompts, positions):
    method = fitted(family_model)
    capture = Capture(blocks=True, positions=positions, basis="residual")
    before = read_activations(family_model, prompts, capture=capture, batch_size=5)
    with method.applied(family_model, FULL):
        after = read_activations(family_model, prompts, capture=capture, batch_size=5)
    direction = method.directions[1]
    for name, values in [*after.blocks.items(), *after.outputs.items()]:
        original = before.blocks[name] if name in before.blocks else before.outputs[name]
        size = numpy.linalg.norm(values, axis=1)
        assert (abs(values @ direction) < 1e-4 * size).all(), name
        assert abs(original @ direction).max() > 0.01 * numpy.linalg.norm(original, axis=1).mean(), name


def test_the_stream_between_attention_and_mlp_is_ablated_too(family_model, prompts):
    method = fitted(family_model)
    direction, seen = torch.from_numpy(method.directions[1]), []
    block = family_model.blocks[1]
    norm = getattr(block, "pre_feedforward_layernorm", block.post_attention_layernorm)
    with method.applied(family_model, FULL), ExitStack() as stack:
        hook = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double()))
        stack.callback(hook.remove)
        respond(family_model, prompts, max_new_tokens=3, batch_size=5)
    assert len(seen) == 3  # The prompt and two decoding steps.
    for stream in seen:
        assert ((stream @ direction).abs() <= 1e-4 * stream.norm(dim=-1)).all()


def test_a_partial_strength_leaves_its_share_and_touches_nothing_else(llama):
    method = fitted(llama)
    capture = Capture(outputs=False, final=False, blocks=True, positions="all")
    before = read_activations(llama, ["hi"], capture=capture, batch_size=1).blocks[0]
    with method.applied(llama, {**FULL, "strength": 0.25}):
        after = read_activations(llama, ["hi"], capture=capture, batch_size=1).blocks[0]
    direction = method.directions[1]
    numpy.testing.assert_allclose(after @ direction, 0.75 * (before @ direction), atol=1e-6)
    across = numpy.eye(48) - numpy.outer(direction, direction)
    numpy.testing.assert_allclose(after @ across, before @ across, atol=1e-6)


@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_affine_ablation_takes_the_last_prompt_token_to_the_level_of_answers(family_model, prompts, strength):
    method = RefusalAblation()
    training = training_of(family_model)
    method.fit(training)
    levels, direction = method.levels[1], method.directions[1]
    answered = (training.benign == 1) & (training.answered == 1)
    assert levels[1] == pytest.approx((training.residuals[1][answered] @ direction).mean(), rel=1e-4)
    capture = Capture(outputs=False, final=False, blocks=True, positions="all")
    before = read_activations(family_model, prompts[:1], capture=capture, batch_size=1).blocks
    with method.applied(family_model, {**FULL, "variant": AFFINE, "strength": strength}):
        after = read_activations(family_model, prompts[:1], capture=capture, batch_size=1).blocks
    for site in (0, 1):
        numpy.testing.assert_allclose(after[site][:-1], before[site][:-1], atol=1e-6)
    went = (after[0][-1] - before[0][-1]) @ direction
    assert went == pytest.approx(strength * (levels[0] - before[0][-1] @ direction), rel=1e-3, abs=1e-5)
    if strength == 1:
        assert after[1][-1] @ direction == pytest.approx(levels[1], rel=1e-3, abs=1e-5)


def test_half_precision_stays_half_precision(llama, prompts):
    method = fitted(llama)
    llama.model.to(torch.bfloat16)
    with method.applied(llama, FULL):
        final = read_activations(llama, prompts, capture=Capture(), batch_size=5).outputs[FINAL]
    size = numpy.linalg.norm(final, axis=1)
    assert (abs(final @ method.directions[1]) < 0.01 * size).all()


def test_cached_decoding_equals_uncached_decoding_in_a_padded_batch(family_model):
    method = fitted(family_model)
    tokens = torch.tensor([[0, 0, 0, 1, 9, 8], [1, 4, 9, 8, 30, 77]])
    options = {"attention_mask": (tokens > 0).long(), "max_new_tokens": 6, "do_sample": False}
    options.update(return_dict_in_generate=True, output_scores=True)
    plain = family_model.model.generate(tokens, **options)
    with method.applied(family_model, FULL):
        cached = family_model.model.generate(tokens, use_cache=True, **options)
        uncached = family_model.model.generate(tokens, use_cache=False, **options)
    assert cached.sequences.tolist() == uncached.sequences.tolist()
    torch.testing.assert_close(torch.stack(cached.scores), torch.stack(uncached.scores), atol=1e-3, rtol=1e-3)
    assert (cached.scores[0] - plain.scores[0]).abs().max() > 0.05


def test_padding_and_neighbours_do_not_matter(llama, prompts):
    method = fitted(llama)
    with method.applied(llama, FULL):
        together = respond(llama, prompts, max_new_tokens=5, batch_size=5).texts
        alone = [respond(llama, [prompt], max_new_tokens=5, batch_size=1).texts[0] for prompt in prompts]
    assert together == alone != respond(llama, prompts, max_new_tokens=5, batch_size=5).texts


def test_it_leaves_no_trace_even_after_an_error_and_strength_zero_changes_nothing(family_model, prompts):
    method = fitted(family_model)
    before = weights_of(family_model)
    texts = respond(family_model, prompts, max_new_tokens=5, batch_size=5).texts
    with pytest.raises(RuntimeError), method.applied(family_model, FULL):
        raise RuntimeError("even after an error")
    assert all(torch.equal(weight, before[key]) for key, weight in family_model.model.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in family_model.model.modules())
    assert respond(family_model, prompts, max_new_tokens=5, batch_size=5).texts == texts
    for still in (method.search_space(9)[0], {**FULL, "strength": 0.0}):
        with method.applied(family_model, still):
            assert respond(family_model, prompts, max_new_tokens=5, batch_size=5).texts == texts


@pytest.mark.parametrize("depth", [2, 6, 32, 80])
@pytest.mark.parametrize("trials", [1, 2, 9, 43])
def test_the_search_space_uses_the_whole_budget_and_starts_unsteered(depth, trials):
    method = RefusalAblation()
    method.fit(planted_training(depth))
    settings = method.search_space(trials)
    assert settings == json.loads(json.dumps(settings))
    assert len(settings) == trials == len({json.dumps(setting) for setting in settings})
    assert settings[0]["strength"] == 0
    assert 0 <= sum((setting["variant"] == DIRECTIONAL) - (setting["variant"] == AFFINE) for setting in settings) <= 1
    sites = {round(setting["site"] * depth) for setting in settings if setting["strength"]}
    assert sites <= set(method.directions)
    if trials == 43:
        assert sites == set(method.directions) or len(sites) == 8
        for variant in (DIRECTIONAL, AFFINE):
            mine = [setting["strength"] for setting in settings if setting["variant"] == variant]
            assert mine[:2] == [0, 1] and mine[-1] == 0.05 and len(set(mine)) == len(mine)


@pytest.mark.parametrize(
    "toxic, benign, outcome",
    [
        ("answered", "answered", "no refused toxic prompts"),
        ("refused", "refused", "no answered benign prompts"),
        ("degenerate", "degenerate", "no answered benign prompts"),
    ],
)
def test_what_cannot_be_fitted_is_a_named_outcome(llama, prompts, toxic, benign, outcome):
    method = RefusalAblation()
    method.fit(training_of(llama, toxic, benign))
    setting, *others = method.search_space(43)
    assert all(other["strength"] == 0 for other in others)
    assert method.outcome == outcome and setting["strength"] == 0
    texts = respond(llama, prompts, max_new_tokens=4, batch_size=5).texts
    with method.applied(llama, setting):
        assert respond(llama, prompts, max_new_tokens=4, batch_size=5).texts == texts


def test_equal_means_everywhere_give_no_direction_and_overflow_is_left_out():
    method = RefusalAblation()
    method.fit(planted_training(equal=range(11)))
    assert method.outcome == "no direction" and not any(setting["strength"] for setting in method.search_space(43))
    training = planted_training()
    training.residuals[2] = numpy.full((200, 16), numpy.inf, dtype=numpy.float32)
    method.fit(training)
    assert method.outcome == "fitted" and 2 not in method.directions and 3 in method.directions
