"""AlphaSteer: its gate equals the published matrix, opens for toxic rows alone, and steers prompts only."""

import json

import numpy
import pandas
import pytest
import torch
from conftest import prompt_table
from test_alignment import weights_of

from llmva.engines.greedy import respond
from llmva.measures.metrics import correct
from llmva.models.activations import Capture
from llmva.models.reading import read_activations
from llmva.steering.base import TrainingData
from llmva.steering.baselines.alpha_steer import DAMPING, NULL_RATIOS, AlphaSteer, find_gates
from llmva.steering.baselines.alpha_steer_plus import MIN_JAILBROKEN, AlphaSteerPlus
from llmva.steering.search import distinct_spans

METHODS = (AlphaSteer, AlphaSteerPlus)
NEUTRAL = ("what is a rope", "name a colour", "seven plus five")
PLUS_VARIANTS = ["benign", "benign and refused toxic"]


def training_of(chat_model, count=12, verdicts=("answered", "refused", "answered", "degenerate"), neutral=NEUTRAL):
    rows = prompt_table(count)
    rows["verdict"] = [verdicts[number % len(verdicts)] for number in range(len(rows))]
    return TrainingData(chat_model, rows, neutral, batch_size=24, seed=0)


def planted(residuals, labels, verdicts, neutral=()):
    """Return training data whose residuals at every site are given."""
    rows = pandas.DataFrame({"id": range(len(labels)), "label": labels, "verdict": verdicts})
    training = TrainingData(None, rows, tuple("x" * len(neutral)), batch_size=1, seed=0)
    training.__dict__["residuals"] = dict.fromkeys(range(3), residuals)
    training.__dict__["neutral_residuals"] = dict.fromkeys(range(3), numpy.asarray(neutral))
    return training


def test_what_was_handled_rightly_is_what_the_metrics_count():
    verdicts = ["answered", "refused", "evaded", "degenerate", "unparsed"]
    rows = pandas.DataFrame({"id": range(10), "label": ["benign"] * 5 + ["toxic"] * 5, "verdict": verdicts * 2})
    rows["dataset"], rows["guard_verdict"] = rows["label"], rows["verdict"].replace("degenerate", "answered")
    training = TrainingData(None, rows, (), batch_size=1, seed=0)
    assert training.right.tolist() == correct(rows).tolist() and training.right.sum() == 3


def strong(method, chat_model):
    """Fit a method on a random model and return it with a setting that changes replies."""
    method.fit(training_of(chat_model))
    settings = [setting for setting in method.search_space(9) if setting.get("span") == "all"]
    return {**settings[0], "strength": 3.0}


# The closed form


@pytest.mark.parametrize("count", [200, 15, 5])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_the_gate_and_the_step_are_the_published_matrix(count, scale):
    generator = numpy.random.default_rng(count)
    size, step = 20, generator.normal(size=20)
    handled = scale * (generator.normal(size=(count, size)) @ generator.normal(size=(size, size)) + 2)
    harmful = scale * (generator.normal(size=(30, size)) + 1)
    gates = find_gates(handled, harmful)
    assert len(gates) == (1 if count == 5 else len(NULL_RATIOS))
    for ratio, gate in gates.items():
        width = max(int(ratio * size), size - count)
        lowest = numpy.linalg.svd(handled)[2][size - width :].T
        projector = lowest @ lowest.T
        free = harmful @ projector
        damping = DAMPING * numpy.trace(lowest.T @ harmful.T @ harmful @ lowest) / width
        targets = numpy.tile(step, (len(harmful), 1))
        inverse = numpy.linalg.pinv(free.T @ free + damping * projector.T @ projector)
        matrix = projector @ inverse @ free.T @ targets
        numpy.testing.assert_allclose(numpy.outer(gate, step) * scale, matrix * scale, atol=1e-8)


def test_the_gate_is_shut_inside_the_span_of_the_handled_rows_and_open_for_harmful_rows_outside_it():
    generator = numpy.random.default_rng(0)
    basis = numpy.linalg.qr(generator.normal(size=(60, 60)))[0]
    handled = generator.normal(size=(100, 20)) @ basis[:20]
    harmful = generator.normal(size=(50, 20)) @ basis[:20] + 3 * basis[30] + 0.1 * generator.normal(size=(50, 60))
    unseen = generator.normal(size=(50, 20)) @ basis[:20]
    for ratio, gate in find_gates(handled, harmful).items():
        assert abs(unseen @ gate).max() < 1e-8, ratio
        numpy.testing.assert_allclose(harmful @ gate, 1, atol=0.15)


def test_the_gate_means_the_same_whatever_the_size_of_the_residual():
    generator = numpy.random.default_rng(1)
    handled, harmful = generator.normal(size=(2, 90, 30)) + numpy.array([0, 1])[:, None, None]
    large = find_gates(1000 * handled, 1000 * harmful)
    for ratio, gate in find_gates(handled, harmful).items():
        numpy.testing.assert_allclose(1000 * harmful @ large[ratio], harmful @ gate, rtol=1e-6)


def test_equal_rows_give_a_gate_of_zeros_instead_of_rounding():
    row = numpy.random.default_rng(0).normal(size=48).astype(numpy.float32) * 40
    gates = find_gates(numpy.tile(row, (30, 1)), numpy.tile(row, (20, 1)))
    assert gates and not any(gate.any() for gate in gates.values())


def test_ratios_that_the_exact_null_space_makes_equal_are_kept_once():
    generator = numpy.random.default_rng(0)
    harmful = generator.normal(size=(4, 40))
    assert list(find_gates(generator.normal(size=(10, 40)), harmful)) == [0.4]
    assert list(find_gates(generator.normal(size=(21, 40)), harmful)) == [0.4, 0.5, 0.6]
    assert list(find_gates(generator.normal(size=(18, 40)), harmful)) == [0.4, 0.6]


# Which rows count


def planted_rows(groups):
    """Return 40 rows a group, each on an axis of its own beside a common one, with labels and verdicts."""
    generator = numpy.random.default_rng(0)
    parts = [generator.normal(size=(40, 24)) * 0.02 + numpy.eye(24)[0] * 5 + 3 * numpy.eye(24)[axis] for axis in groups]
    labels = numpy.repeat([label for label, _ in groups.values()], 40)
    verdicts = numpy.repeat([verdict for _, verdict in groups.values()], 40)
    return numpy.concatenate(parts).astype(numpy.float32), labels, verdicts


GROUPS = {
    1: ("benign", "answered"),
    2: ("benign", "refused"),
    3: ("toxic", "answered"),
    4: ("toxic", "refused"),
}


def opening(method, variant, rows):
    return (rows @ method.gates[variant, 1][0.5]).reshape(len(GROUPS), 40).mean(1)


def test_alpha_steer_spares_all_benign_and_all_neutral_prompts_and_finds_the_planted_step():
    rows, labels, verdicts = planted_rows(GROUPS)
    neutral = numpy.tile(5 * numpy.eye(24)[0] + 3 * numpy.eye(24)[5], (40, 1)).astype(numpy.float32)
    method = AlphaSteer()
    method.fit(planted(rows, labels, verdicts, neutral))
    assert method.outcome == "fitted"
    numpy.testing.assert_allclose(opening(method, "", rows), [0, 0, 1, 1], atol=0.05)
    assert abs(neutral @ method.gates["", 1][0.5]).max() < 0.05
    # Refused minus answered, whatever the label, as long as a residual.
    direction = numpy.eye(24)[[2, 4]].sum(0) - numpy.eye(24)[[1, 3]].sum(0)
    step = method.steps[1]
    assert step @ direction / (numpy.linalg.norm(step) * numpy.linalg.norm(direction)) > 0.999
    assert numpy.linalg.norm(step) == pytest.approx(numpy.linalg.norm(rows, axis=1).mean(), rel=1e-4)


def test_alpha_steer_plus_spares_what_was_handled_rightly_and_opens_for_jailbreaks():
    rows, labels, verdicts = planted_rows(GROUPS)
    method = AlphaSteerPlus()
    method.fit(planted(rows, labels, verdicts, neutral=rows[80:120]))
    benign, refused = (opening(method, variant, rows) for variant in PLUS_VARIANTS)
    # Were the neutral rows used, which here are the jailbroken ones, the gate would be shut.
    numpy.testing.assert_allclose(benign[[0, 2]], [0, 1], atol=0.05)
    numpy.testing.assert_allclose(refused[[0, 2, 3]], [0, 1, 0], atol=0.05)


@pytest.mark.parametrize("jailbroken", [MIN_JAILBROKEN, MIN_JAILBROKEN - 1])
def test_with_few_jailbreaks_all_toxic_prompts_open_the_gate(jailbroken):
    labels = ["benign"] * 4 + ["toxic"] * 60
    verdicts = ["answered"] * (4 + jailbroken) + ["refused"] * (60 - jailbroken)
    samples = AlphaSteerPlus().samples(planted(numpy.zeros((64, 3)), labels, verdicts))
    expected = jailbroken if jailbroken == MIN_JAILBROKEN else 60
    assert [int(harmful.sum()) for _, harmful in samples.values()] == [expected] * 2
    assert [int(spared.sum()) for spared, _ in samples.values()] == [4, 64 - jailbroken]


# Steering


@pytest.mark.parametrize("span, first", [("middle", 1), ("all", 0)])
def test_the_step_times_the_gate_of_the_steered_stream_is_added_to_all_prompt_positions(llama, span, first):
    method = AlphaSteer()
    method.fit(training_of(llama))
    # Steps at the first block's input are zero; a planted one shows that later gates see what it did.
    method.steps[0] = method.steps[1][::-1].copy()
    method.gates["", 0] = method.gates["", 1]
    capture = Capture(outputs=False, final=False, blocks=True, positions="all")
    ratio = next(iter(method.gates["", 1]))
    with method.applied(llama, {"span": span, "null_ratio": ratio, "strength": 0.7}):
        before, after = [], []
        # Hooks run in the order they were attached, but for prepended ones.
        hooks = [
            llama.blocks[1].register_forward_pre_hook(lambda _, inputs: after.append(inputs[0])),
            llama.blocks[1].register_forward_pre_hook(lambda _, inputs: before.append(inputs[0]), prepend=True),
        ]
        read_activations(llama, ["hi"], capture=capture, batch_size=1)
        for hook in hooks:
            hook.remove()
    gate = before[0][:, -1].double() @ torch.from_numpy(method.gates["", 1][ratio])
    step = 0.7 * gate[:, None, None] * torch.from_numpy(method.steps[1])
    assert step.abs().max() > 1e-3
    numpy.testing.assert_allclose((after[0] - before[0]).numpy(), step.expand_as(before[0]).numpy(), atol=1e-4)
    unsteered = read_activations(llama, ["hi"], capture=capture, batch_size=1).blocks[1]
    assert numpy.allclose(before[0][0].numpy(), unsteered, atol=1e-5) == (first == 1)


@pytest.mark.parametrize("kind", METHODS)
def test_cached_decoding_equals_uncached_decoding_in_a_padded_batch(family_model, kind):
    method = kind()
    setting = strong(method, family_model)
    tokens = torch.tensor([[0, 0, 0, 1, 9, 8], [1, 4, 9, 8, 30, 77]])
    options = {"attention_mask": (tokens > 0).long(), "max_new_tokens": 6, "do_sample": False}
    options.update(return_dict_in_generate=True, output_scores=True)
    plain = family_model.model.generate(tokens, **options)
    with method.applied(family_model, setting):
        cached = family_model.model.generate(tokens, use_cache=True, **options)
        uncached = family_model.model.generate(tokens, use_cache=False, **options)
    assert cached.sequences.tolist() == uncached.sequences.tolist()
    torch.testing.assert_close(torch.stack(cached.scores), torch.stack(uncached.scores), atol=1e-3, rtol=1e-3)
    assert (cached.scores[0] - plain.scores[0]).abs().max() > 0.1


@pytest.mark.parametrize("kind", METHODS)
def test_padding_and_neighbours_do_not_matter(llama, prompts, kind):
    method = kind()
    with method.applied(llama, strong(method, llama)):
        together = respond(llama, prompts, max_new_tokens=5, batch_size=5).texts
        alone = [respond(llama, [prompt], max_new_tokens=5, batch_size=1).texts[0] for prompt in prompts]
    assert together == alone != respond(llama, prompts, max_new_tokens=5, batch_size=5).texts


@pytest.mark.parametrize("kind", METHODS)
def test_it_leaves_no_trace_even_after_an_error_and_strength_zero_changes_nothing(llama, prompts, kind):
    method = kind()
    setting = strong(method, llama)
    before, texts = weights_of(llama), respond(llama, prompts, max_new_tokens=5, batch_size=5).texts
    with pytest.raises(RuntimeError), method.applied(llama, setting):
        raise RuntimeError("even after an error")
    assert all(torch.equal(weight, before[key]) for key, weight in llama.model.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in llama.model.modules())
    assert respond(llama, prompts, max_new_tokens=5, batch_size=5).texts == texts
    for still in (method.search_space(9)[0], {**setting, "strength": 0.0}):
        with method.applied(llama, still):
            assert respond(llama, prompts, max_new_tokens=5, batch_size=5).texts == texts


# Settings and outcomes


@pytest.mark.parametrize("trials", [1, 2, 9, 43])
def test_the_search_space_uses_the_whole_budget_and_starts_unsteered(llama, trials):
    method = AlphaSteer()
    method.fit(training_of(llama))
    settings = method.search_space(trials)
    assert settings == json.loads(json.dumps(settings))
    assert len(settings) == trials == len({json.dumps(setting) for setting in settings})
    assert settings[0]["strength"] == 0 and all(setting["strength"] > 0 for setting in settings[1:])
    if trials == 43:
        # Of two blocks the published span, the middle and the late one are the same block.
        assert {setting["span"] for setting in settings[1:]} == {"published", "all"}


def test_a_deeper_model_gets_all_spans_with_all_ratios():
    rows, labels, verdicts = planted_rows(GROUPS)
    training = planted(rows, labels, verdicts, neutral=rows[:40])
    for contents in (training.residuals, training.neutral_residuals):
        contents.update(dict.fromkeys(range(7), contents[0]))
    method = AlphaSteer()
    method.fit(training)
    assert distinct_spans(AlphaSteer.spans, 6) == {
        "published": range(2, 4),
        "middle": range(2, 5),
        "late": range(3, 6),
        "all": range(6),
    }
    pairs = {(setting["span"], setting["null_ratio"]) for setting in method.search_space(13)[1:]}
    assert len(pairs) == 12


@pytest.mark.parametrize("trials", [1, 2, 9, 43])
def test_variants_share_the_budget_and_each_starts_unsteered(llama, trials):
    method = AlphaSteerPlus()
    method.fit(training_of(llama))
    table = pandas.DataFrame(method.search_space(trials))
    assert len(table) == trials and table["strength"].iloc[0] == 0
    counts = table["variant"].value_counts()
    assert list(counts.index) == PLUS_VARIANTS[: len(counts)] and counts.max() - counts.min() <= 1
    assert (table.groupby("variant")["strength"].min() == 0).all()


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize(
    "change, outcome",
    [
        ({"verdict": "answered"}, "one class"),
        ({"verdict": "degenerate"}, "one class"),
        ({"label": "toxic"}, "nothing to spare"),
        ({"label": "benign"}, "no toxic prompts"),
    ],
)
def test_what_cannot_be_fitted_is_a_named_outcome(llama, prompts, kind, change, outcome):
    training = training_of(llama)
    method = kind()
    method.fit(TrainingData(llama, training.rows.assign(**change), NEUTRAL, batch_size=24, seed=0))
    setting, *others = method.search_space(43)
    assert all(other["strength"] == 0 for other in others)
    assert method.outcome == outcome and setting["strength"] == 0
    texts = respond(llama, prompts, max_new_tokens=4, batch_size=5).texts
    with method.applied(llama, setting):
        assert respond(llama, prompts, max_new_tokens=4, batch_size=5).texts == texts


def test_overflowing_residuals_are_a_named_outcome_and_no_neutral_prompts_are_none():
    rows, labels, verdicts = planted_rows(GROUPS)
    method = AlphaSteer()
    method.fit(planted(rows, labels, verdicts))
    assert method.outcome == "fitted"
    rows[3, 3] = numpy.inf
    method.fit(planted(rows, labels, verdicts))
    assert method.outcome == "non-finite" and len(method.search_space(9)) == 1
