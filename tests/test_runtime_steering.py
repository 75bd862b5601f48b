"""Run-time steering: where each update lands, what stays untouched to the last bit, and that nothing is left behind."""

from dataclasses import replace

import numpy
import pytest
import torch

from llmva.engines import greedy, hugging_face
from llmva.models.activations import Capture
from llmva.models.batches import pad
from llmva.models.chat_model import encode_chats
from llmva.models.reading import read_activations
from llmva.steering.base import residuals_of
from llmva.steering.residual import changed_residuals
from llmva.steering.runtime.boundary import Boundary, fit_boundary, mean_difference, place_boundary
from llmva.steering.runtime.steering import RuntimeSteering
from llmva.steering.runtime.two_sided import SafetyGate
from llmva.steering.runtime.updates import MAX_DEVIATIONS, UPDATES

WIDTH = 48
ASKED = {"max_new_tokens": 6, "batch_size": 3}
METHODS = list(UPDATES)


def boundary_of(seed=0, threshold=0.3, **numbers) -> Boundary:
    """Return a boundary along a random direction."""
    vector = numpy.random.default_rng(seed).standard_normal(WIDTH)
    statistics = {"positive_mean": 1.5, "positive_deviation": 0.2, "negative_mean": -0.5, "negative_deviation": 0.3}
    unit = (vector / numpy.linalg.norm(vector)).astype(numpy.float32)
    return Boundary(unit, threshold, **{**statistics, **numbers})


def move(method, alpha, hidden, boundary=None, **options):
    """Return a stream after one steering of all of its tokens, and the steering."""
    steering = RuntimeSteering(boundary or boundary_of(), method, alpha, layer=1, **options)
    return steering.moved(hidden, torch.ones(hidden.shape[:-1], dtype=torch.bool)), steering


@pytest.fixture
def hidden():
    return torch.from_numpy(numpy.random.default_rng(1).standard_normal((3, 7, WIDTH)).astype(numpy.float32))


def places(hidden, boundary=None):
    return hidden @ torch.from_numpy((boundary or boundary_of()).direction)


# Where the updates land


@pytest.mark.parametrize(
    ("method", "alpha", "target"),
    [
        ("StMP", 0.0, lambda rho: rho),
        ("StMP", 0.5, lambda rho: torch.full_like(rho, 0.3)),
        ("StMP", 1.0, lambda rho: 0.6 - rho),
        ("StMP", 2.0, lambda rho: rho + 4 * (0.3 - rho)),
        ("StTP", 0.0, lambda rho: torch.full_like(rho, 1.5)),
        ("StTP", 6.0, lambda rho: torch.full_like(rho, 1.5 + 6 * 0.2)),
    ],
)
def test_a_gated_method_moves_tokens_below_the_boundary_to_its_target(hidden, method, alpha, target):
    before, (after, _) = places(hidden), move(method, alpha, hidden)
    below = before < 0.3
    assert below.any() and not below.all()
    torch.testing.assert_close(places(after)[below], target(before[below]), atol=2e-5, rtol=1e-5)
    assert after[~below].equal(hidden[~below])


@pytest.mark.parametrize("alpha", [1.0, 3.0])
def test_swfc_moves_every_token_by_the_same_multiple_of_the_gap(hidden, alpha):
    after, steering = move("SwFC", alpha, hidden)
    torch.testing.assert_close(places(after) - places(hidden), torch.full((3, 7), alpha * 2.0), atol=2e-5, rtol=1e-5)
    assert steering.tally.share_moved == 1 and steering.tally.mean_distance == pytest.approx(alpha * 2.0, abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_orthogonal_to_the_direction_stays(hidden, method):
    after, _ = move(method, 2.0, hidden)
    direction = torch.from_numpy(boundary_of().direction)
    rest = [stream - places(stream)[..., None] * direction for stream in (hidden, after)]
    torch.testing.assert_close(*rest, atol=1e-5, rtol=0)


def test_the_mirrored_point_is_capped(hidden):
    far = hidden - 200 * torch.from_numpy(boundary_of().direction)
    after, _ = move("StMP", 4.0, far)
    torch.testing.assert_close(places(after), torch.full((3, 7), 1.5 + MAX_DEVIATIONS * 0.2), atol=1e-3, rtol=0)


def test_an_overflowed_token_is_left_alone(hidden):
    hidden[0, 0] = float("inf")
    hidden[0, 1] = float("nan")
    after, _ = move("StTP", 1.0, hidden)
    assert torch.equal(torch.isfinite(after), torch.isfinite(hidden))


def test_without_a_gate_tokens_on_the_right_side_are_moved_too(hidden):
    after, steering = move("StTP", 1.0, hidden, always=True)
    torch.testing.assert_close(places(after), torch.full((3, 7), 1.7), atol=2e-5, rtol=0)
    assert steering.tally.share_moved == 1


def test_a_boundary_seen_from_its_other_side_moves_the_other_tokens(hidden):
    boundary = boundary_of()
    after, _ = move("StMP", 0.5, hidden, boundary.reversed())
    above = places(hidden) > 0.3
    torch.testing.assert_close(places(after)[above], torch.full_like(places(after)[above], 0.3), atol=2e-5, rtol=0)
    assert after[~above].equal(hidden[~above])
    assert boundary.reversed().gap == boundary.gap
    assert boundary.reversed().reversed().positive_mean == boundary.positive_mean


def test_projections_are_float32_where_the_stream_is_bfloat16(hidden):
    narrow = hidden.bfloat16()
    after, _ = move("StTP", 0.0, narrow)
    below = places(narrow.float()) < 0.3
    assert after.dtype == torch.bfloat16 and after[~below].equal(narrow[~below])
    torch.testing.assert_close(places(after.float())[below], torch.full((int(below.sum()),), 1.5), atol=0.05, rtol=0)


# The boundary


def planted(n=60, shift=3.0, offset=0.0):
    """Return activations on both sides of a planted boundary, and the planted direction."""
    generator = numpy.random.default_rng(2)
    direction = generator.standard_normal(WIDTH)
    direction /= numpy.linalg.norm(direction)
    noise = generator.standard_normal((2, n, WIDTH)) * 0.3
    return noise[0] + (offset + shift / 2) * direction, noise[1] + (offset - shift / 2) * direction, direction


def test_a_planted_direction_is_found_with_its_boundary():
    positive, negative, direction = planted(offset=5.0)
    found = fit_boundary(positive, negative)
    assert found.direction @ direction > 0.95
    assert numpy.linalg.norm(found.direction) == pytest.approx(1, abs=1e-6)
    assert ((positive @ found.direction >= found.threshold).mean() > 0.98) and found.gap == pytest.approx(3, abs=0.3)
    assert (negative @ found.direction < found.threshold).mean() > 0.98
    assert found.positive_deviation == pytest.approx((positive @ found.direction).std(), rel=1e-3)


def test_a_control_is_placed_half_way_and_towards_the_trait():
    positive, negative, direction = planted()
    placed = place_boundary(-2 * mean_difference(positive, negative), positive, negative)
    assert placed.direction @ direction > 0.95 and placed.gap > 0
    assert placed.threshold == pytest.approx((placed.positive_mean + placed.negative_mean) / 2)


# In a model


def steering_of(layer=1, method="StTP", alpha=4.0, **options):
    return RuntimeSteering(boundary_of(threshold=0.1), method, alpha, layer, **options)


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_the_chosen_layer_is_steered_and_those_below_it_are_not(family_model, prompts, layer, method):
    capture = Capture(outputs=False, blocks=True, positions="all")
    options = {"capture": capture, "batch_size": 5}
    before = residuals_of(read_activations(family_model, prompts, **options))
    steering = steering_of(layer, method)
    with steering.applied(family_model):
        after = residuals_of(read_activations(family_model, prompts, **options))
    for earlier in range(layer):
        assert (after[earlier] == before[earlier]).all()
    expected = replace(steering).moved(
        torch.from_numpy(before[layer]), torch.ones(len(before[layer]), dtype=torch.bool)
    )
    numpy.testing.assert_allclose(after[layer], expected, atol=2e-5)


@pytest.mark.parametrize("position", ["all", "response", "writing"])
@pytest.mark.parametrize("method", METHODS)
def test_decoding_from_the_cache_is_decoding_without_it(family_model, prompts, method, position):
    batch = pad(family_model, encode_chats(family_model.tokenizer, prompts))
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    texts = []
    for use_cache in (True, False):
        with steering_of(1, method, position=position).applied(family_model):
            texts.append(family_model.model.generate(**batch, **options, use_cache=use_cache))
    assert texts[0].equal(texts[1])


@pytest.mark.parametrize("method", METHODS)
def test_the_engine_of_the_studies_steers_as_generate_does(family_model, prompts, method):
    with steering_of(1, method).applied(family_model):
        assert (
            greedy.respond(family_model, prompts, **ASKED).texts
            == hugging_face.respond(family_model, prompts, **ASKED).texts
        )


def test_padding_changes_nothing_beyond_rounding(family_model, prompts):
    capture, steering = Capture(outputs=False, blocks=True), steering_of(1)
    with steering.applied(family_model):
        together = residuals_of(read_activations(family_model, prompts, capture=capture, batch_size=len(prompts)))
        alone = [
            residuals_of(read_activations(family_model, [prompt], capture=capture, batch_size=1)) for prompt in prompts
        ]
    for site, rows in together.items():
        numpy.testing.assert_allclose(rows, numpy.concatenate([each[site] for each in alone]), atol=3e-5)


@pytest.mark.parametrize(("position", "counts"), [("all", True), ("response", False)])
def test_a_prompt_is_steered_at_all_tokens_only(llama, prompts, position, counts):
    steering = steering_of(1, "SwFC", position=position)
    with steering.applied(llama):
        read_activations(llama, prompts, capture=Capture(), batch_size=5)
    tokens = sum(map(len, encode_chats(llama.tokenizer, prompts)))
    assert steering.tally.tokens == (tokens if counts else 0)


def test_writing_begins_with_the_last_prompt_token(llama, prompts):
    steering = steering_of(1, "SwFC", position="writing")
    with steering.applied(llama):
        read_activations(llama, prompts, capture=Capture(), batch_size=5)
    assert steering.tally.tokens == len(prompts)


def test_no_hook_is_left_after_an_error(llama, prompts):
    plain = greedy.respond(llama, prompts, **ASKED).texts
    with pytest.raises(RuntimeError), steering_of().applied(llama):
        raise RuntimeError
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in llama.model.modules())
    assert greedy.respond(llama, prompts, **ASKED).texts == plain


# Two sides


def gate_of(safety_threshold=0.0):
    sides = [RuntimeSteering(side, "StMP", 0.5, 1, "writing") for side in (boundary_of(3), boundary_of(3).reversed())]
    return SafetyGate(boundary_of(4, safety_threshold), *sides)


def test_two_sided_gating_moves_only_what_its_prompts_safety_contradicts(llama, prompts):
    capture = Capture(outputs=False, blocks=True)
    before = residuals_of(read_activations(llama, prompts, capture=capture, batch_size=5))[1]
    benign = before @ boundary_of(4).direction >= 0
    answering = before @ boundary_of(3).direction >= boundary_of(3).threshold
    with changed_residuals(llama, {1: gate_of().change}):
        after = residuals_of(read_activations(llama, prompts, capture=capture, batch_size=5))[1]
    moved = (before != after).any(axis=1)
    assert (moved == (benign != answering)).all()
    numpy.testing.assert_allclose(after[moved] @ boundary_of(3).direction, boundary_of(3).threshold, atol=2e-5)


def test_a_prompts_side_is_kept_while_finished_replies_leave_the_batch(llama, monkeypatch):
    prompts = [f"{'please ' * (number % 4)}tell me about rope number {number}" for number in range(12)]
    capture = Capture(outputs=False, blocks=True)
    before = residuals_of(read_activations(llama, prompts, capture=capture, batch_size=5))[1]
    # Prompts lie on either side, and none at the boundary.
    gate, left = gate_of(float(numpy.sort(before @ boundary_of(4).direction)[5:7].mean())), []

    def watched(hidden, now):
        after = gate.change(hidden, now)
        if isinstance(now.rows, torch.Tensor):
            left.append(gate._benign[now.rows.cpu()].float().mean())
        return after

    vocabulary = llama.model.config.vocab_size
    for remainder in range(4):
        # A fourth of all tokens end a reply, so that some of them end early.
        ends = list(range(remainder, vocabulary, 4))
        monkeypatch.setattr(llama.model.generation_config, "eos_token_id", ends)
        with changed_residuals(llama, {1: watched}):
            together = greedy.respond(llama, prompts, max_new_tokens=8, batch_size=12).texts
        with changed_residuals(llama, {1: gate.change}):
            alone = [greedy.respond(llama, [prompt], max_new_tokens=8, batch_size=1).texts[0]
                     for prompt in prompts]  # fmt: skip
        assert together == alone
    # It happened: of those that were left, some were steered to either side.
    assert any(0 < share < 1 for share in left)
