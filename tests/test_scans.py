"""SCANS: the classifier finds planted toxic rows, pushes each its own way, and leaves no trace."""

import numpy
import pandas
import pytest
import torch
from conftest import prompt_table
from test_alignment import weights_of

from llmva.engines.greedy import respond
from llmva.models.activations import FINAL, Activations, Capture
from llmva.models.batches import pad
from llmva.models.chat_model import encode_chats, load_model
from llmva.steering import base
from llmva.steering.base import TrainingData
from llmva.steering.baselines import scans
from llmva.steering.baselines.scans import Scans, find_thresholds, read_transitions

REPLIES = {"answered": "sure, here is what you asked for.", "refused": "i am sorry, but no."}


def training_of(chat_model, **columns):
    """Training rows of both labels and both verdicts, with prompts of different lengths."""
    rows = prompt_table(count=12)
    rows["prompt"] = [prompt + " and then the rope" * (index % 4) for index, prompt in enumerate(rows["prompt"])]
    rows["verdict"] = ["refused" if index % 3 else "answered" for index in range(len(rows))]
    rows = rows.assign(**columns)
    rows["response"] = rows["verdict"].map(REPLIES)
    return TrainingData(chat_model, rows, neutral=(), batch_size=7, seed=0)


def padded(chat_model, prompts):
    """A left-padded batch of templated prompts."""
    return pad(chat_model, encode_chats(chat_model.tokenizer, prompts))


def decode(chat_model, batch, use_cache, **options):
    """Six greedy tokens a row."""
    return chat_model.model.generate(**batch, max_new_tokens=6, do_sample=False, use_cache=use_cache, **options)


def block_inputs(chat_model, block, method, setting, batch):
    """What a block reads in each pass of decoding, steering of that block included."""
    seen = []

    def spy(_, inputs, options):
        seen.append((inputs[0] if inputs else options["hidden_states"]).clone())

    with method.applied(chat_model, setting):
        hook = chat_model.blocks[block].register_forward_pre_hook(spy, with_kwargs=True)
        tokens = decode(chat_model, batch, True)
        hook.remove()
    # A classifier's own pass is longer than the prompts.
    return [states for states in seen if states.shape[1] <= batch["input_ids"].shape[1]], tokens


def hooks_of(chat_model):
    return [module for module in chat_model.model.modules() if module._forward_pre_hooks or module._forward_hooks]


@pytest.fixture(scope="module")
def model(family_folders):
    return load_model(str(family_folders["llama"]))


@pytest.fixture(scope="module")
def fitted(model):
    method = Scans()
    method.fit(training_of(model))
    assert method.outcome == "fitted"
    return method


@pytest.fixture
def scores(fitted, model, prompts):
    """The classifier's scores of the five prompts, over all blocks."""
    transitions = read_transitions(model, **renamed(padded(model, prompts)))
    return numpy.mean([scans.cosines(transitions[site], fitted.references[site]) for site in (1, 2)], axis=0)


@pytest.fixture
def mixed(scores):
    """A setting whose threshold halves the five prompts, so that both ways are taken."""
    between = (numpy.sort(scores)[1:3]).mean()
    return {"span": "all", "threshold": float(between), "strength": 0.8}


def renamed(batch):
    return {"tokens": batch["input_ids"], "attention_mask": batch["attention_mask"]}


def test_a_planted_direction_is_found_and_the_classifier_separates_planted_toxic_rows(model, monkeypatch):
    training = training_of(model)
    generator, size, count = numpy.random.default_rng(0), 48, len(training.rows)
    direction, transition = numpy.eye(size)[3], numpy.eye(size)[7]
    toxic = training.benign == -1
    common = 20 * numpy.eye(size)[11]
    last = common + 0.03 * generator.normal(size=(count, size)) + 4 * toxic[:, None] * direction
    after = last - 0.03 * generator.normal(size=(count, size)) - numpy.where(toxic, 1, -1)[:, None] * transition
    last, after = last.astype(numpy.float32), after.astype(numpy.float32)
    training.__dict__["residuals"] = dict.fromkeys(range(3), last)
    repeated = after.repeat(len(model.tokenizer(scans.WORD, add_special_tokens=False)["input_ids"]), axis=0)
    read = Activations({FINAL: repeated}, {}, dict.fromkeys(range(2), repeated), numpy.ones(count))
    monkeypatch.setattr(base, "read_activations", lambda *_, **options: read)
    method = Scans()
    method.fit(training)
    step = method.steps[1]
    assert step @ direction / numpy.linalg.norm(step) > 0.999
    assert numpy.linalg.norm(step) == pytest.approx(numpy.linalg.norm(last, axis=1).mean(), rel=1e-5)
    best = find_thresholds(method.cosines[1], toxic)[0]
    assert ((method.cosines[1] >= best) == toxic).all()
    assert best == pytest.approx(method.search_space(2)[1]["threshold"])


def test_the_best_threshold_lies_between_the_classes_and_the_others_around_it():
    toxic = numpy.arange(100) >= 60
    best, lower, upper = find_thresholds(numpy.where(toxic, 0.8, 0.2) + numpy.linspace(-0.01, 0.01, 100), toxic)
    assert best == pytest.approx(0.5, abs=0.01) and lower < 0.3 and upper > 0.7
    assert find_thresholds(numpy.ones(4), numpy.array([True, False, True, False])) == [1.0]


def test_the_decision_while_answering_is_that_of_the_training_rows_whatever_the_padding(fitted, model):
    training = training_of(model)
    texts = training.rows["prompt"].tolist()
    transitions = read_transitions(model, **renamed(padded(model, texts)))
    for site, reference in fitted.references.items():
        numpy.testing.assert_allclose(
            scans.cosines(transitions[site], reference), fitted.cosines[site], rtol=0, atol=1e-5
        )


def test_unsafe_rows_are_pushed_forwards_and_safe_rows_backwards_from_the_last_prompt_token_on(
    fitted, model, prompts, scores, mixed
):
    batch = padded(model, prompts)
    plain, _ = block_inputs(model, 1, fitted, {"strength": 0.0}, batch)
    seen, _ = block_inputs(model, 1, fitted, mixed, batch)
    moved = (seen[0] - plain[0]).numpy()
    assert not moved[:, :-1].any()
    along = moved[:, -1] @ fitted.steps[1] / (fitted.steps[1] @ fitted.steps[1])
    numpy.testing.assert_allclose(numpy.abs(along), 0.8, rtol=1e-4)
    assert numpy.sign(along).tolist() == numpy.where(scores >= mixed["threshold"], 1, -1).tolist()
    assert {-1, 1} == set(numpy.sign(along))


def test_generated_tokens_are_pushed_too(fitted, model, prompts, mixed, monkeypatch):
    seen = []
    push = scans.add_where
    monkeypatch.setattr(scans, "add_where", lambda *given: seen.append(given[1].sum(1).tolist()) or push(*given))
    with fitted.applied(model, mixed):
        decode(model, padded(model, prompts), use_cache=False)
    # Two blocks; the last prompt token alone, then one more token in every pass over the whole text.
    assert seen[0::2] == seen[1::2] == [[length] * len(prompts) for length in range(1, len(seen) // 2 + 1)]


def test_cached_decoding_equals_uncached_decoding_and_the_classifier_runs_once(
    fitted, model, prompts, mixed, monkeypatch
):
    fitted._cosines_of.clear()
    runs = []
    read = scans.read_transitions
    monkeypatch.setattr(scans, "read_transitions", lambda *given: runs.append(1) or read(*given))
    batch = padded(model, prompts)
    plain = decode(model, batch, use_cache=True)
    with fitted.applied(model, mixed):
        cached = decode(model, batch, use_cache=True)
        assert len(runs) == 1
    # What was read is known to every setting of the method; afresh it is read once in decoding without a cache, too.
    with fitted.applied(model, {**mixed, "strength": 0.1}):
        decode(model, batch, use_cache=True)
        assert len(runs) == 1
    fitted._cosines_of.clear()
    with fitted.applied(model, mixed):
        uncached = decode(model, batch, use_cache=False)
        assert len(runs) == 2
    assert cached.tolist() == uncached.tolist() != plain.tolist()


def test_padding_and_neighbours_do_not_matter_in_any_family(family_model, prompts):
    method = Scans()
    method.fit(training_of(family_model))
    setting = {**method.search_space(2)[1], "span": "all", "strength": 0.6}
    with method.applied(family_model, setting):
        together = respond(family_model, prompts, max_new_tokens=5, batch_size=5).texts
        alone = respond(family_model, prompts, max_new_tokens=5, batch_size=1).texts
    assert together == alone


def test_nothing_is_left_after_the_block_even_after_an_error(fitted, model, prompts, mixed):
    before, texts = weights_of(model), respond(model, prompts, max_new_tokens=5, batch_size=5).texts
    with pytest.raises(RuntimeError), fitted.applied(model, mixed):
        steered = respond(model, prompts, max_new_tokens=5, batch_size=5).texts
        raise RuntimeError("even after an error")
    assert not hooks_of(model)
    assert all(torch.equal(weight, before[key]) for key, weight in model.model.state_dict().items())
    assert respond(model, prompts, max_new_tokens=5, batch_size=5).texts == texts != steered


def test_strength_zero_changes_nothing_and_hooks_nothing(fitted, model, mixed):
    with fitted.applied(model, {**mixed, "strength": 0.0}):
        assert not hooks_of(model)


@pytest.mark.parametrize("trials", [1, 2, 9, 43])
def test_the_search_space_uses_the_whole_budget_and_has_the_unsteered_model(fitted, trials):
    settings = fitted.search_space(trials)
    assert len(settings) == trials and settings[0] == {"strength": 0.0}
    assert len({tuple(setting.values()) for setting in settings}) == trials
    if trials == 43:
        assert len({setting["threshold"] for setting in settings[1:]}) > 2
        assert min(setting["strength"] for setting in settings[1:]) > 0


@pytest.mark.parametrize("label", ["toxic", "benign"])
def test_prompts_of_one_label_are_a_recorded_outcome(model, label):
    method = Scans()
    method.fit(training_of(model, label=label))
    assert method.outcome == "one class" and method.search_space(43) == [{"strength": 0.0}]
    with method.applied(model, {"strength": 0.0}):
        assert not hooks_of(model)


@pytest.mark.parametrize("positions", ["last", "all", "mean"])
def test_capture_under_steering_records_the_steered_prompt_and_not_the_classifiers_pass(llama, prompts, positions):
    labels = ["toxic", "benign", "toxic", "benign", "toxic"]
    rows = pandas.DataFrame({"id": range(5), "dataset": "d", "label": labels, "prompt": prompts})
    method = Scans()
    method.fit(TrainingData(llama, rows.assign(response="no", verdict="answered"), (), 5, 0))
    capture, found = Capture(positions=positions), []
    for strength in (0.0, 0.5):
        with method.applied(llama, {"span": "all", "threshold": 0.0, "strength": strength}):
            said = respond(llama, prompts, max_new_tokens=2, batch_size=3, capture=capture)
        found.append(said.activations.outputs[FINAL])
    assert found[0].shape == found[1].shape and not numpy.allclose(*found)
