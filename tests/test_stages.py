"""The stages of a study: computed once, found again without a model, and anew when what they rest on changes."""

import json
import sqlite3
from dataclasses import asdict

import pandas
import pytest
from conftest import prompt_table, save_random_model
from test_alignment import DigestJudge

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.params import StudyParams, load_params
from llmva.core.results import read_results
from llmva.core.store import Stage, stage_key
from llmva.core.vocabulary import CONSTANTS, GUARDED_LOOP, LOOPS, PAPER_LOOP
from llmva.method.iteration import read_observation
from llmva.method.loop import LOOP_VERSION
from llmva.steering.registry import METHODS
from llmva.study import ablations
from llmva.study.ablations import (
    combine_judges,
    compare_judges,
    cross_sets,
    measure_noised,
    vary_angle,
    vary_iterations,
    vary_layers,
)
from llmva.study.evaluation import (
    OTHER_CHOICES,
    evaluate_all,
    evaluate_original,
    finish_results,
    read_outcomes,
    read_test_rows,
    run_loops,
)
from llmva.study.llm_va_r import (
    COMPARED_BASELINES,
    CONTROLS,
    controls_of,
    evaluate_parts,
    record_parts,
    run_controls,
    run_parts,
)
from llmva.study.loop_variants import (
    LLM_VA_R,
    Choice,
    FinishedLoop,
    Variant,
    probe_layers,
    read_loop,
    run_alignment,
    run_llm_va_r,
    run_released,
)
from llmva.study.margins import MARGINS, compare_margins
from llmva.study.records import (
    record_angle_ablation,
    record_angles,
    record_iteration_ablation,
    record_judges,
    record_layer_ablation,
    record_margins,
    record_noise,
    record_results,
    record_shortcuts,
)
from llmva.study.stages import FIRST_LOOK, collect_prompts, compare_solvers, observe_original
from llmva.study.study import Study

# Tuned in a moment; fine-tuning and the others have tests of their own.
QUICK = ("Original", "VectorSteer", "AlphaSteer+")


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A random model, two made-up sets, and a judge that finds both classes."""
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr("llmva.study.study.PhraseJudge", DigestJudge)
    monkeypatch.setattr("llmva.judging.degeneracy.is_looping", lambda reply: False)
    monkeypatch.setattr("llmva.judging.degeneracy.is_empty", lambda reply: False)
    save_random_model(tmp_path / "model")
    prompt_table(60).to_csv(tmp_path / "prompts.csv", index=False)
    return tmp_path


def study_of(world, **changes):
    values = load_params("tiny-llama").model_dump() | {
        "slug": "toy",
        "model": str(world / "model"),
        "judge": "phrases",
        "data": str(world / "prompts.csv"),
        "threads": 1,
        "generation": {"batch_size": 256, "max_new_tokens": 4},
        "pool_size": 40,
        "sample_per_dataset": 16,
        "iterations": 2,
        "probe": {"l_select": [2, 3, 99], "iterations": 1},
        "ridge": {"neutral_weight": 1.0, "damping": 0.001, "iterations": 1},
        "ablations": {"iterations": 3, "degrees": [0, 60], "draws": 2, "l_select": [1, 4]},
        "null_draws": 3,
    }
    return Study(StudyParams.checked(values | changes))


def run_all(study):
    stages = [collect_prompts(study), observed := observe_original(study), compare_solvers(study, observed)]
    stages.append(probe_layers(study))
    loops = run_loops(study)
    evaluated = evaluate_all(study, loops)
    return [*stages, *loops.values(), *evaluated.values(), finish_results(study, evaluated, "05_main_results")]


@pytest.fixture(autouse=True)
def _quick_methods(monkeypatch):
    monkeypatch.setattr("llmva.study.evaluation.METHODS", {name: METHODS[name] for name in QUICK})


def test_a_judge_that_speaks_no_format_is_named_before_anything_rests_on_it(world):
    study = study_of(world, judge=str(save_random_model(world / "guard", seed=3)))
    with pytest.raises(InputError, match=r"guard: 100% of its judgements are not the three lines of Qwen3Guard-Gen"):
        collect_prompts(study)
    # Found out from the first replies, each asked for twice.
    cache = sqlite3.connect(world / "runs" / "verdicts.sqlite")
    assert cache.execute("SELECT count(*) FROM texts").fetchone()[0] <= FIRST_LOOK
    assert not (world / "runs" / "toy" / "00_start_here").exists()


def test_a_share_of_errors_of_a_set_that_is_nowhere_is_named_before_the_model_answers(world):
    study = study_of(world, data=str(world / "mine.csv"), error_share={"seval_attacks": 0.8})
    rows = [f"prompt number {row},{('benign', 'toxic')[row % 2]},mine" for row in range(60)]
    (world / "mine.csv").write_text("\n".join(["prompt,label,dataset", *rows]) + "\n")
    with pytest.raises(InputError, match=r"toy: error_share\.seval_attacks: no such set of prompts; known .*, mine$"):
        collect_prompts(study)


def test_how_a_guard_is_read_is_part_of_a_study(world):
    guard = str(save_random_model(world / "guard", seed=3))
    read = {"model": guard, "mapping": "refusal"}
    assert study_of(world, judge=guard).identity() != study_of(world, judge=read).identity()
    assert study_of(world, judge=guard).identity() == study_of(world, judge={**read, "mapping": "outcome"}).identity()


def test_a_second_run_finds_everything_without_loading_a_model(world, monkeypatch):
    first = run_all(study_of(world))
    assert not any(stage.hit for stage in first)
    monkeypatch.setattr("llmva.study.study.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    second = run_all(study_of(world))
    assert all(stage.hit for stage in second)
    assert [stage.key for stage in first] == [stage.key for stage in second]


def test_two_runs_from_nothing_write_the_same_bytes(world, monkeypatch):
    def digests():
        return [stage.manifest["files"] for stage in run_all(study_of(world))]

    first = digests()
    monkeypatch.setattr(paths, "RUNS", world / "elsewhere")
    assert digests() == first


def test_no_prompt_is_answered_twice_by_the_same_state_of_the_model(world):
    facts = {stage.folder.name: stage.manifest["facts"] for stage in run_all(study_of(world))}
    counts = {name: (fact.get("prompts_asked", 0), fact.get("prompts_answered", 0)) for name, fact in facts.items()}
    # The judge's trial asks some candidates twice.
    assert counts["00_start_here"] == (120 + FIRST_LOOK, 120)
    # The original has answered the candidates, of which all others are; an iteration has answered validation prompts.
    assert counts["01_orthogonality"][0] > 0 and counts["01_orthogonality"][1] == 0
    assert counts["original"][0] > 0 and counts["original"][1] == 0
    assert all(answered < asked for asked, answered in counts.values() if asked)


def test_more_candidates_than_sublayers_count_as_all(world):
    study = study_of(world)
    collect_prompts(study)
    probed = probe_layers(study)
    assert json.loads((probed / "choice.json").read_text())["sublayers"] == 4
    assert set(pandas.read_csv(probed / "probes.csv")["l_select"]) == {2, 3, 4}


@pytest.mark.parametrize("column", ["label", "group"])
def test_other_labels_or_groups_are_another_pool(world, column):
    key = collect_prompts(study_of(world)).key
    table = pandas.read_csv(world / "prompts.csv")
    table.loc[0:3, column] = {"label": "benign", "group": "one"}[column]
    table.to_csv(world / "prompts.csv", index=False)
    assert collect_prompts(study_of(world)).key != key


def test_other_weights_are_another_study(world):
    key = collect_prompts(study_of(world)).key
    save_random_model(world / "model", seed=5)
    assert collect_prompts(study_of(world)).key != key


def evaluate_quickly(study):
    collect_prompts(study)
    return evaluate_all(study, {"LLM-VA": run_alignment(study, 3)})


def test_every_method_answers_the_same_test_prompts(world):
    study = study_of(world)
    evaluated = evaluate_quickly(study)
    outcomes = read_outcomes(evaluated, "test")
    assert {
        *CONSTANTS,
        *QUICK,
        "VectorSteer (reading vector)",
        "AlphaSteer+ (benign)",
        PAPER_LOOP,
        GUARDED_LOOP,
    } <= set(outcomes)
    assert all(rows["id"].tolist() == study.test["id"].tolist() for rows in outcomes.values())
    assert set(outcomes["Refuse everything"]["verdict"]) == {"refused"}
    for name in ("VectorSteer", "AlphaSteer+"):
        assert len(pandas.read_csv(evaluated[name] / "trials.csv")) <= study.params.trials == 1 + 3 * 1 + 2 - 1
    said = read_test_rows({"Original": evaluated["Original"]})["Original"]
    assert said["response"].notna().all() and said["id"].tolist() == study.test["id"].tolist()


def test_a_method_is_recorded_under_its_name_and_each_variants(world, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS", world / "results")
    study = study_of(world)
    frame = record_results(study, evaluate_quickly(study))
    table = read_results("table2", ["toy"])
    assert set(table["method"]) == set(frame["method"])
    properties = read_results("table1", ["toy"]).set_index(["method", "metric"])["value"]
    assert properties["Fine-tuning", "finetunes"] == 1 and properties["LLM-VA", "hooks"] == 0
    # The best of all settings is the best of its variant too.
    best = [frame[(frame["method"] == name) & (frame["metric"] == "f1")]["value"].item() for name in
            ("VectorSteer", "VectorSteer (mean difference)", "VectorSteer (reading vector)")]  # fmt: skip
    assert best[0] in best[1:]


def test_the_guarded_choice_keeps_away_from_broken_replies(world):
    study = study_of(world)
    collect_prompts(study)
    stage = run_alignment(study, 3)
    loop = read_loop(stage)
    history, chosen = loop.history, loop.chosen_by("guarded")
    assert history.loc[chosen, "degenerate"] <= history.loc[0, "degenerate"] + 0.02
    assert history.loc[chosen, "divergence"] <= 0.05


def test_the_stop_rule_strikes_at_the_first_fall_or_never():
    history = pandas.DataFrame({"mean_accuracy_answer": [0.95, 0.9, 0.84, 0.99, 0.2]})
    assert FinishedLoop(None, None, history).stop_iteration() == 2
    assert FinishedLoop(None, None, history.loc[:1]).stop_iteration() is None


def test_every_loop_has_its_row_and_two_have_another_choice_of_theirs(world):
    study = study_of(world)
    collect_prompts(study)
    loops = run_loops(study)
    assert set(loops) | {name for name, _ in OTHER_CHOICES.values()} == set(LOOPS)
    for name, (_, selection) in OTHER_CHOICES.items():
        loop = read_loop(loops[name])
        assert loop.chosen_by(selection) in loop.history.index
    assert read_loop(loops["LLM-VA (released code)"]).choice.rounding == "bfloat16"


def test_ablations_share_the_loops_iterations_and_leave_their_results(world, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS", world / "results")
    study = study_of(world)
    collect_prompts(study)
    run_alignment(study)
    known = {path.name for path in (study.folder / "iterations").iterdir() if path.is_dir()}
    history = record_iteration_ablation(study, vary_iterations(study))
    added = {path.name for path in (study.folder / "iterations").iterdir() if path.is_dir()} - known
    assert history.index.tolist() == [0, 1, 2, 3] and len(added) == 1
    best = record_angle_ablation(study, vary_angle(study))
    assert best[["degrees", "draw"]].to_numpy().tolist() == [[0, 0], [60, 0], [60, 1]]
    original = evaluate_original(study)
    assert record_layer_ablation(study, vary_layers(study), original).index.tolist() == [1, 4]
    agreement = compare_judges(study, read_test_rows({"Original": original}))
    histories = record_judges(study, combine_judges(study), agreement)
    assert set(histories["judges"]) == {"one judge", "combined judges"}
    assert record_noise(study, measure_noised(study))["noise"].is_monotonic_increasing
    assert len(record_shortcuts(study, cross_sets(study))) == 1
    for item in ("figure6", "figure8", "figure11", "figure12", "judges", "noise", "shortcuts"):
        assert len(read_results(item, ["toy"]))


def test_judges_are_compared_on_what_stands_behind_the_thinking(world, monkeypatch):
    study = study_of(world)
    collect_prompts(study)
    test = study.test
    # A template has opened the span, so that the second reply never left it.
    ended, unended = "hm. </think> here is how.", "here is how"
    replies = [ended if number % 2 else unended for number in range(len(test))]
    table = test[["id", "label"]].assign(response=replies)
    agreed = {}
    for opened in (True, False):
        monkeypatch.setattr(ablations, "opens_thinking", lambda tokenizer, opened=opened: opened)
        monkeypatch.setattr(ablations, "kappa", lambda guard, phrases: set(phrases))
        agreed[opened] = set.union(*compare_judges(study, {"Original": table})["kappa"])
    assert "unparsed" in agreed[True] and "unparsed" not in agreed[False]


def test_the_first_of_the_margins_is_the_studys_own(world, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS", world / "results")
    study = study_of(world)
    collect_prompts(study)
    observed = observe_original(study)
    compared = compare_margins(study, observed)
    table = pandas.read_csv(compared / "margins.csv", index_col="sublayer")
    own, angles = table[table["feature_scale"] == "raw"], record_angles(study, observed)
    for name in ("angle", "angle_null_low", "angle_null_mean", "angle_null_high"):
        assert own[name].to_numpy() == pytest.approx(angles[name].to_numpy(), rel=1e-6)
    sublayers = read_observation(observed).sublayers
    for name in ("accuracy_benign", "accuracy_answer"):
        assert own[name].to_numpy() == pytest.approx(sublayers[name].to_numpy())
    by_set = study.validation.groupby("dataset").size()
    shares = own[[f"{name}_accuracy" for name in by_set.index]].to_numpy()
    assert shares @ by_set.to_numpy() / by_set.sum() == pytest.approx(own["accuracy_benign"].to_numpy())
    margins = record_margins(study, compared)
    assert margins.index.tolist() == ["raw, C = 1", *(f"{scale}, C = {penalty:g}" for scale, penalty in MARGINS)]
    first = own.loc[["attention.00", "mlp.00"], "angle"].mean()
    assert margins.loc["raw, C = 1", "angle_first"] == pytest.approx(first)
    assert read_results("margins", ["toy"])["group"].nunique() == 4


def test_soft_margins_have_a_penalty_of_their_own(world):
    study = study_of(world, ridge={"neutral_weight": 1.0, "damping": 0.001, "iterations": 1, "penalty": 2.0})
    assert study.settings(1, 1).observation.penalty == study.params.svm.penalty == 1.0
    assert study.settings(1, 1, **LLM_VA_R.changes).observation.penalty == 2.0
    assert study.settings(1, 1, feature_scale="length", penalty=3.0).observation.penalty == 3.0
    collect_prompts(study)
    assert controls_of(study) == (*CONTROLS[1:], Variant("C 0.1", {**LLM_VA_R.changes, "penalty": 0.1}))


@pytest.mark.parametrize(("tasks", "expected"), [(["gsm", "copy"], CONTROLS), (["copy"], CONTROLS[1:])])
def test_arithmetic_is_left_out_of_neutral_text_where_there_is_some(world, monkeypatch, tasks, expected):
    monkeypatch.setattr(Study, "neutral", pandas.DataFrame({"task": tasks}))
    assert controls_of(study_of(world)) == expected


def test_a_budget_for_thinking_is_part_of_what_a_study_is(world, monkeypatch):
    plain, thinking = study_of(world), study_of(world, thinking=7)
    assert thinking.plain_examiner.engine == thinking.engine and thinking.engine.__self__.budget == 7
    assert thinking.plain_examiner.reader == thinking.thinking.read
    assert plain.plain_examiner.engine == plain.engine == plain.replies.respond
    # Its prompts are those that the model thinks behind; the tokenizer that was loaded is as it was.
    assert thinking.chat_model.tokenizer.chat_template.endswith(plain.chat_model.tokenizer.chat_template)
    assert thinking.identity()["thinking"] == 7 and "thinking" not in plain.identity()
    assert thinking.params.written == 4 + 7 and "thinking" not in plain.params.values
    # The prompts must leave room for both.
    context = plain.chat_model.model.config.max_position_embeddings
    collect_prompts(plain)
    with pytest.raises(InputError, match=f"tokens less {context + 4:,} for the reply"):
        collect_prompts(study_of(world, thinking=context))
    with pytest.raises(InputError, match="thinking: .* does not think before it answers; leave the budget out"):
        collect_prompts(thinking)


def test_the_parts_of_llm_va_r_are_run_alike_and_compared_on_the_same_prompts(world, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS", world / "results")
    monkeypatch.setattr("llmva.study.evaluation.METHODS", METHODS)
    study = study_of(world)
    collect_prompts(study)
    parts = {"LLM-VA": run_alignment(study, 3), **run_parts(study)}
    loops = {**parts, **run_controls(study, parts["LLM-VA-R"])}
    table = record_parts(study, loops, evaluate_parts(study, loops))
    assert list(table.index) == ["Original", *COMPARED_BASELINES, *loops, "LLM-VA-R, beta"]
    assert table["beta"].dropna().index.tolist() == ["LLM-VA-R, beta"]
    shared = {tuple(read_loop(stage).history.index) for name, stage in parts.items() if name != "LLM-VA"}
    assert shared == {(0, 1)}
    rows = read_results("ridge", ["toy"]).set_index("metric")
    assert set(rows.loc["test_strict_f1", "n"]) == {len(study.test)}
    assert set(rows.loc["strict_f1", "n"]) == {len(study.validation)} and rows.loc["strict_f1", "iteration"].min() == 0
    assert set(rows.loc["mean_angle", "method"]) == {"LLM-VA", "LLM-VA-R"}
    assert read_results("ridge", ["toy"])["method"].nunique() == len(table)


def test_the_pool_is_needed_first(world):
    from llmva.core.errors import InputError

    with pytest.raises(InputError, match="run notebook 00"):
        observe_original(study_of(world))


def test_finished_loops_of_earlier_versions_are_read(tmp_path):
    (tmp_path / "choice.json").write_text('{"best_iteration": 1}')
    pandas.DataFrame({"iteration": [0, 1], "strict_f1": [0.5, 0.7]}).to_csv(tmp_path / "history.csv", index=False)
    loop = read_loop(Stage(tmp_path, "", hit=True))
    assert loop.choice == Choice(1) and loop.choice.rounding == "none"
    assert loop.history["strict_f1"].tolist() == [0.5, 0.7]


def test_stages_have_the_keys_of_finished_studies(monkeypatch):
    """A key that changes by accident makes finished studies stale: these change with a version, and then on purpose."""
    keys = {}

    def declare(folder, compute, *, parameters, upstream=(), version=1):
        keys[folder.name] = stage_key(parameters, upstream, version)[:12]
        return Stage(folder, keys[folder.name], hit=True)

    fields = {"identity": lambda self, *names: {name: str(getattr(self.params, name)) for name in names}}
    fields |= {"prompts_stage": Stage(paths.RUNS / "toy", "prompts", hit=True), "tasks": pandas.DataFrame([["a"]])}
    study = type("Declared", (Study,), fields)(load_params("tiny-llama"))
    monkeypatch.setattr("llmva.study.study.run_stage", declare)
    monkeypatch.setattr("llmva.study.loop_variants.chosen_l_select", lambda study: 8)
    for run in (observe_original, probe_layers, run_alignment, run_released, run_llm_va_r, measure_noised):
        run(study)
    assert keys == STAGE_KEYS
    settings = study.settings(8, 30).observation
    assert stage_key({"iteration": 0, **asdict(settings)}, (), LOOP_VERSION)[:12] == ITERATION_KEY


STAGE_KEYS = {
    "01_orthogonality": "ecfbca031c84",
    "03_layer_selection": "95ac52ec5ae1",
    "04_alignment_loop": "bafdf026688d",
    "llm_va_r": "37c5d5b1161f",
    "llm_va_released_code": "5b6414c993d6",
    "noise": "95daa79b0815",
}
ITERATION_KEY = "b3b8ce9bc128"
