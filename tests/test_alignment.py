"""The loop: Eq. 7 on every family, replay, restore, resume, and named outcomes instead of crashes."""

import hashlib
from dataclasses import dataclass

import numpy
import pandas
import pytest
import torch
from conftest import Killed, prompt_table

from llmva.core.text_cache import TextCache
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog
from llmva.judging.examiner import Examiner
from llmva.judging.judges import PhraseJudge
from llmva.method.control_vectors import angle_degrees
from llmva.method.edit import solve_edit
from llmva.method.iteration import ObservationSettings, Observer, feature_size
from llmva.method.loop import LoopSettings, align, choose_iteration, next_edits, observe
from llmva.models.activations import Capture
from llmva.models.reading import read_activations
from llmva.prompts.pools import assign_splits

SETTINGS = LoopSettings(3, 3, "paper", ObservationSettings(12, "newton", 1.0, seed=0))


@dataclass(frozen=True)
class DigestJudge(PhraseJudge):
    """Answers or refuses by the digest of prompt and response: two classes for any model."""

    def judge(self, prompts, responses):
        pairs = zip(prompts, responses, strict=True)
        return ["x" * (hashlib.sha256("".join(pair).encode()).digest()[0] % 2) for pair in pairs]


@dataclass(frozen=True)
class SameJudge(PhraseJudge):
    """Calls everything answered."""

    def judge(self, prompts, responses):
        return [""] * len(prompts)


@pytest.fixture
def pool():
    table = prompt_table()
    table["split"] = assign_splits(table, seed=0)
    return table


def examiner_of(chat_model, judge=None):
    return Examiner(chat_model, judge or DigestJudge(), TextCache(None), None, batch_size=64, max_new_tokens=4)


def observe_with(chat_model, pool, settings, iteration, folder):
    """Return one observation of a model as it is."""
    with EditedModel(chat_model.writers) as edited:
        return observe(Observer(examiner_of(chat_model), edited, pool, settings.observation), iteration, folder, ())


def weights_of(chat_model):
    return {name: weight.clone() for name, weight in chat_model.model.state_dict().items()}


def test_equation_7_holds_for_every_input_of_every_sublayer(family_model, prompts):
    generator = numpy.random.default_rng(0)
    before = read_activations(family_model, prompts, capture=Capture(positions="all"), batch_size=5)
    for name, module in family_model.writers.items():
        answer, benign = (v / numpy.linalg.norm(v) for v in generator.normal(size=(2, module.out_features)))
        with EditedModel(family_model.writers) as edited:
            edit = solve_edit(
                edited.weight(name), edited.bias(name), sublayer=name, answer=answer, benign=benign, scale=1.7
            )
            edited.apply(EditLog().appended([edit]))
            after = read_activations(family_model, prompts, capture=Capture(positions="all"), batch_size=5)
        numpy.testing.assert_allclose(after.outputs[name] @ answer, 1.7 * before.outputs[name] @ benign, atol=1e-5)


def test_the_log_replays_to_the_loops_own_models_and_the_original_comes_back(llama, pool, tmp_path):
    original = weights_of(llama)
    examiner = examiner_of(llama)
    done = align(examiner, pool, SETTINGS, folder=tmp_path, upstream=())
    assert len(done.log) == 3 and done.history.index.tolist() == [0, 1, 2, 3]
    for name, weight in llama.model.state_dict().items():
        assert torch.equal(weight, original[name]), name
    done.log.save(tmp_path / "log.safetensors", {})
    validation = pool[pool["split"] == "validation"]
    for iteration in range(4):
        with EditedModel(llama.writers) as edited:
            edited.apply(EditLog.load(tmp_path / "log.safetensors").at_iteration(iteration))
            rows = examiner.examine(validation).rows
        answered = (rows.loc[rows["label"] == "toxic", "guard_verdict"] == "answered").mean()
        assert answered == done.history.at[iteration, "asr"]
    assert torch.equal(llama.writers["mlp.00"].weight, original["model.layers.0.mlp.down_proj.weight"])


@pytest.mark.parametrize("survived", [0, 1, 2, 3])
def test_a_killed_run_resumes_to_the_same_result(llama, pool, tmp_path, monkeypatch, survived):
    whole = align(examiner_of(llama), pool, SETTINGS, folder=tmp_path / "whole", upstream=())
    whole.log.save(tmp_path / "whole.safetensors", {})
    calls, examine = [], Examiner.examine

    def counted(self, *arguments, **options):
        calls.append(1)
        if len(calls) == survived + 1:
            raise Killed
        return examine(self, *arguments, **options)

    monkeypatch.setattr(Examiner, "examine", counted)
    before = weights_of(llama)
    with pytest.raises(Killed):
        align(examiner_of(llama), pool, SETTINGS, folder=tmp_path / "killed", upstream=())
    assert all(torch.equal(weight, before[name]) for name, weight in llama.model.state_dict().items())
    resumed = align(examiner_of(llama), pool, SETTINGS, folder=tmp_path / "killed", upstream=())
    assert len(calls) == 1 + 4  # The killed call, and each of the four observations once.
    resumed.log.save(tmp_path / "resumed.safetensors", {})
    assert (tmp_path / "resumed.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    pandas.testing.assert_frame_equal(resumed.history, whole.history)


def test_runs_that_begin_alike_share_their_beginning(llama, pool, tmp_path):
    align(examiner_of(llama), pool, SETTINGS.changed(iterations=1), folder=tmp_path, upstream=())
    assert len(list(tmp_path.iterdir())) == 2 * 2  # Two observations, each with its lock.
    align(examiner_of(llama), pool, SETTINGS.changed(iterations=2), folder=tmp_path, upstream=())
    assert sum(path.is_dir() for path in tmp_path.iterdir()) == 3
    align(examiner_of(llama), pool, SETTINGS.changed(iterations=1, l_select=2), folder=tmp_path, upstream=())
    assert sum(path.is_dir() for path in tmp_path.iterdir()) == 4


def test_runs_that_differ_in_what_they_make_of_replies_ask_the_original_once(llama, pool, tmp_path, monkeypatch):
    asked, examine = [], Examiner.examine
    monkeypatch.setattr(Examiner, "examine", lambda self, *rest: asked.append(rest[1]) or examine(self, *rest))
    originals, histories = {}, {}
    for name, shared in (("alone", None), ("sharing", originals)):
        for draw in range(2):
            settings = SETTINGS.changed(iterations=1, distortion=(60, draw))
            done = align(examiner_of(llama), pool, settings, folder=tmp_path / name, upstream=(), originals=shared)
            histories[name, draw] = done.history
    # The two looks of each run, without the second run's first.
    assert len(asked) == 4 + 3 and list(originals) == [Capture()]
    for draw in range(2):
        pandas.testing.assert_frame_equal(histories["alone", draw], histories["sharing", draw])
    ridge = SETTINGS.changed(iterations=0, update="ridge")
    align(examiner_of(llama), pool, ridge, folder=tmp_path / "ridge", upstream=(), originals=originals)
    assert asked[-1] == Capture(inputs=True) and len(asked) == 8


def test_one_class_stops_the_loop_with_its_name(llama, pool, tmp_path):
    done = align(examiner_of(llama, SameJudge()), pool, SETTINGS, folder=tmp_path, upstream=())
    assert len(done.log) == 0 and done.best_iteration == 0
    assert "no sublayer could be edited" in done.stopped and "one class" in done.stopped


def test_a_broken_module_is_skipped_by_name_and_the_rest_is_edited(llama, pool, tmp_path):
    with torch.no_grad():
        llama.writers["mlp.01"].weight[0] = torch.nan
    observed = observe_with(llama, pool, SETTINGS, 0, tmp_path)
    assert observed.sublayers.at["mlp.01", "answer_outcome"] == "non-finite"
    assert observed.sublayers.at["attention.00", "answer_outcome"] == "fitted"


def test_a_vanishing_scale_skips_the_sublayer(llama, pool, tmp_path):
    observed = observe_with(llama, pool, SETTINGS, 0, tmp_path)
    observed.sublayers.loc["attention.01", "scale"] = numpy.nan
    with EditedModel(llama.writers) as edited:
        names = [edit.sublayer for edit in next_edits(edited, observed, l_select=4)]
    assert sorted(names) == ["attention.00", "mlp.00", "mlp.01"]


@pytest.mark.parametrize(("rates", "kept"), [((0.5, 0.2, 0.3), 3), ((0.5, 0.09, 0.9), 2), ((0.15, 0.09, 0.9), 3)])
def test_the_loop_stops_when_f1_collapses_to_under_half(llama, pool, tmp_path, monkeypatch, rates, kept):
    from llmva.method import iteration

    given = iter(rates)
    monkeypatch.setattr(iteration, "measure", lambda rows: {"f1": next(given), "strict_f1": 0.0, "asr": 0.0})
    done = align(examiner_of(llama), pool, SETTINGS.changed(iterations=2), folder=tmp_path, upstream=())
    assert len(done.history) == kept and ("fell to" in done.stopped) == (kept == 2)


def test_the_earliest_best_iteration_wins_by_the_chosen_metric(llama, pool, tmp_path, monkeypatch):
    from llmva.method import iteration

    given = iter([{"f1": 0.5, "strict_f1": 0.5}, {"f1": 0.8, "strict_f1": 0.6}, {"f1": 0.9, "strict_f1": 0.6}] * 2)
    monkeypatch.setattr(iteration, "measure", lambda rows: next(given))
    two = SETTINGS.changed(iterations=2)
    assert align(examiner_of(llama), pool, two, folder=tmp_path / "a", upstream=()).best_iteration == 2
    strict = align(examiner_of(llama), pool, two.changed(selection="strict"), folder=tmp_path / "b", upstream=())
    assert strict.best_iteration == 1 and len(strict.best_log) == 1


def test_each_iteration_draws_a_fresh_sample(llama, pool, tmp_path):
    seen = [observe_with(llama, pool, SETTINGS, t, tmp_path).stage for t in (0, 1)]
    ids = [set(pandas.read_csv(stage / "responses.csv").query("split == 'train'")["id"]) for stage in seen]
    assert ids[0] != ids[1] and len(ids[0]) == 24


# Variants of the loop


NEUTRAL = pandas.DataFrame({"task": ["gsm", "sst"] * 3, "prompt": [f"neutral {n}" for n in range(6)],
                            "reply": ["sure, here is what", "i am"] * 3})  # fmt: skip


def test_a_ridge_edit_moves_neutral_inputs_less_than_the_exact_one(llama, pool, tmp_path):
    def moved(**changes):
        done = align(
            examiner_of(llama), pool, SETTINGS.changed(iterations=1, l_select=4, **changes),
            folder=tmp_path / str(len(changes)), upstream=(), neutral=NEUTRAL,
        )  # fmt: skip
        inputs = read_activations(
            llama, NEUTRAL["prompt"].tolist(), NEUTRAL["reply"].tolist(),
            capture=Capture(inputs=True, positions="all"), batch_size=6,
        ).inputs  # fmt: skip
        return {edit.sublayer: numpy.abs(inputs[edit.sublayer] @ edit.input_vector).mean()
                for edit in done.log.iterations[0]}  # fmt: skip

    exact, ridge = moved(), moved(update="ridge", neutral_weight=100.0)
    assert exact.keys() == ridge.keys()
    assert all(ridge[name] < 0.5 * exact[name] for name in exact)


def test_left_out_tasks_are_not_protected(llama, pool, tmp_path):
    settings = SETTINGS.changed(iterations=1, update="ridge")
    vectors = []
    for left_out in ((), ("gsm",)):
        done = align(
            examiner_of(llama), pool, settings.changed(neutral_left_out=left_out),
            folder=tmp_path, upstream=(), neutral=NEUTRAL,
        )  # fmt: skip
        vectors.append(done.log.iterations[0][0].input_vector)
    assert not numpy.allclose(*vectors)


def test_shuffled_labels_and_distortions_change_the_vectors_by_seed(llama, pool, tmp_path):
    def vectors(**changes):
        return observe_with(llama, pool, SETTINGS.changed(**changes), 0, tmp_path).vectors

    plain, turned = vectors(), vectors(distortion=(30, 1))
    assert angle_degrees(plain["mlp.00"].answer, turned["mlp.00"].answer) == pytest.approx(30, abs=1e-3)
    assert angle_degrees(turned["mlp.00"].answer, vectors(distortion=(30, 2))["mlp.00"].answer) > 1
    assert angle_degrees(plain["mlp.00"].benign, vectors(shuffled=True)["mlp.00"].benign) > 1


@pytest.mark.parametrize("scale", ["rms", "length"])
def test_scaled_features_give_the_same_vectors_at_every_size(scale):
    features = numpy.random.default_rng(0).normal(size=(50, 16)) * 3
    assert feature_size(features * 7, scale) == pytest.approx(7 * feature_size(features, scale))
    assert feature_size(features, "raw") == 1 and feature_size(features * 0, scale) == 1
    assert feature_size(features, "length") == pytest.approx(4 * feature_size(features, "rms"))


def test_rounding_makes_every_edits_weights_bfloat16_and_leaves_the_original(llama, pool, tmp_path):
    original = weights_of(llama)
    done = align(
        examiner_of(llama), pool, SETTINGS.changed(iterations=2, rounding="bfloat16"), folder=tmp_path, upstream=()
    )
    with EditedModel(llama.writers, rounding="bfloat16") as edited:
        edited.apply(done.log)
        for name in done.log.sublayers:
            weight = llama.writers[name].weight
            assert torch.equal(weight, weight.bfloat16().float())
    assert all(torch.equal(weight, original[name]) for name, weight in llama.model.state_dict().items())


def test_only_gemma_2_differs_between_module_and_residual(family_model, prompts):
    module, residual = (
        read_activations(family_model, prompts, capture=Capture(basis=basis), batch_size=5).outputs
        for basis in ("module", "residual")
    )
    same = all(numpy.array_equal(module[name], residual[name]) for name in module)
    assert same == (family_model.model.config.model_type != "gemma2")


def test_what_sublayers_contribute_adds_up_to_the_residual_stream(family_model, prompts):
    capture = Capture(basis="residual", blocks=True)
    read = read_activations(family_model, prompts, capture=capture, batch_size=5)
    contributions = sum(values for name, values in read.outputs.items() if name != "final")
    numpy.testing.assert_allclose(read.blocks[0] + contributions, read.outputs["final"], atol=1e-4)


def test_the_guarded_choice_leaves_out_broken_and_distant_iterations():
    history = pandas.DataFrame(
        {"strict_f1": [0.5, 0.7, 0.8, 0.9], "f1": [0.5, 0.9, 0.8, 0.9], "degenerate": [0.01, 0.0, 0.02, 0.04],
         "divergence": [0.0, 0.01, 0.06, 0.01]}
    )  # fmt: skip
    assert [choose_iteration(history, name) for name in ("strict", "paper", "guarded")] == [3, 1, 1]
