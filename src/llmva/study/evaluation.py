"""Every method on the same prompts: tuned on validation with equal trials, then tested once."""

import json
from functools import partial
from pathlib import Path

import pandas

from llmva.core.paths import write_texts
from llmva.core.provenance import digest
from llmva.core.store import Stage
from llmva.core.vocabulary import (
    BOTH,
    CHOICE_TASKS,
    CONSTANTS,
    GUARDED_LOOP,
    LIKELIHOOD_TASKS,
    PAPER_LOOP,
    RELEASED_STRICT,
    REPLY_TASK,
    UNTUNED,
)
from llmva.measures.metrics import measure, strict_rates
from llmva.measures.shares import chance_levels
from llmva.steering.base import SteeringMethod
from llmva.steering.llm_va import LlmVa
from llmva.steering.original import Original
from llmva.steering.registry import METHODS
from llmva.steering.runtime.edited import OnEditedModel
from llmva.steering.runtime.two_sided import TwoSided
from llmva.steering.search import tune
from llmva.steering.untuned import Untuned
from llmva.study.loop_variants import LLM_VA_R, RELEASED, read_loop, run_alignment, run_llm_va_r, run_released
from llmva.study.side_by_side import compute_ahead
from llmva.study.study import Study

# Of how methods are tuned and measured; added to each method's own version.
MEASURE_VERSION = 1
# Rows that differ from a loop's own by the choice among its iterations alone.
OTHER_CHOICES = {PAPER_LOOP: (GUARDED_LOOP, "guarded"), RELEASED.name: (RELEASED_STRICT, "strict")}
# Those that take longest begin first, where methods are computed side by side.
SLOWEST = ("Fine-tuning", "SCANS", "CAST", "VectorSteer", "Two-sided StMP")
OUTCOMES = ["method", "part", "id", "dataset", "label", "guard_verdict", "verdict", "raw"]


def run_loops(study: Study) -> dict[str, Stage]:
    """Run, or find, the three loops of the main results, by the name of their row."""
    compute_ahead(study, [run_llm_va_r, run_released, run_alignment])
    loops = {PAPER_LOOP: run_alignment, RELEASED.name: run_released, LLM_VA_R.name: run_llm_va_r}
    return {name: run(study) for name, run in loops.items()}


def evaluate_all(study: Study, loops: dict[str, Stage]) -> dict[str, Stage]:
    """Evaluate the constants, every method of `steering.registry.METHODS`, and the finished loops.

    Of a pretrained model, the weights that it was tuned from have a row too.

    Parameters
    ----------
    loops : dict of str to Stage
        As `run_loops` returns them; the paper's log also gives "LLM-VA (guarded)", and the released code's the
        row of a strict choice.
    """
    order = sorted(METHODS, key=lambda name: (*SLOWEST, name).index(name))
    compute_ahead(study, [partial(evaluate_baseline, name=name) for name in order])
    stages = {"Constant": evaluate_constants(study)}
    if source := study.untuned_source:
        method = Untuned(source)
        stages[UNTUNED] = evaluate_method(study, method, setting=method.search_space(trials=1)[0])
    stages |= {name: evaluate_baseline(study, name) for name in METHODS}
    for name, loop in loops.items():
        stages[name] = evaluate_loop(study, name, loop)
        if name in OTHER_CHOICES:
            other, selection = OTHER_CHOICES[name]
            stages[other] = evaluate_loop(study, other, loop, read_loop(loop).chosen_by(selection))
    if LLM_VA_R.name in loops:
        stages[BOTH] = evaluate_both(study, loops[LLM_VA_R.name])
    return stages


def evaluate_both(study: Study, loop: Stage) -> Stage:
    """Tune and evaluate two-sided gating on top of LLM-VA-R's chosen iteration; see `evaluate_method`."""
    return evaluate_method(study, both_on(study, loop), upstream=(loop,))


def both_on(study: Study, loop: Stage) -> SteeringMethod:
    """Return two-sided gating on top of a finished loop's chosen iteration, not fitted yet."""
    finished = read_loop(loop)
    log = finished.log.at_iteration(finished.choice.best_iteration)
    return OnEditedModel(BOTH, TwoSided(), log, lambda rows: study.examiner.examine(rows).rows)


def evaluate_baseline(study: Study, name: str) -> Stage:
    """Tune and evaluate a method of `METHODS`; see `evaluate_method`."""
    return evaluate_method(study, METHODS[name]())


def evaluate_loop(study: Study, name: str, loop: Stage, iteration: int | None = None) -> Stage:
    """Evaluate a finished loop at its chosen iteration, or at another one; see `evaluate_method`."""
    finished = read_loop(loop)
    method = LlmVa(finished.log, name, finished.choice.rounding)
    setting = {"iteration": finished.choice.best_iteration if iteration is None else iteration}
    return evaluate_method(study, method, setting=setting, upstream=(loop,))


def evaluate_method(
    study: Study, method: SteeringMethod, *, setting: dict | None = None, upstream: tuple[Stage, ...] = ()
) -> Stage:
    """Fit and tune a method on training and validation prompts, then let it answer the test prompts once.

    Parameters
    ----------
    setting : dict, optional
        A setting that was already chosen on validation; without it the method is tuned here with
        `StudyParams.trials` trials.

    Returns
    -------
    Stage
        `outcomes.csv`: method, part (test or transfer), id, dataset, label, guard_verdict, verdict, raw;
        `responses.csv`: method, part, id, response; `utility.csv`: method, task, metric, value, n,
        unreadable; `settings.json`: the chosen setting by method; and, when tuned, `trials.csv`, and `front.csv`, the
        test metrics of the settings that no other one beat on validation. The manifest says whether there was
        anything to fit. A method with variants has the rows of its best setting under its
        name, and those of each variant under "name (variant)".
    """

    def compute(folder: Path) -> dict:
        settings = {method.name: setting} if setting is not None else _tuned(study, method, folder)
        (folder / "settings.json").write_text(json.dumps(settings, indent=1) + "\n")
        measured = {}
        for name, chosen in settings.items():
            # The best setting is the best of its variant too, and is measured once.
            key = json.dumps(chosen)
            if key not in measured:
                measured[key] = _measure(study, method, chosen)
            _append(folder, name, *measured[key])
        return {"outcome": method.outcome}

    return study.stage(
        f"methods/{stage_name(method.name)}",
        compute,
        fields=("seed",),
        upstream=(study.prompts_stage, *upstream),
        version=MEASURE_VERSION + method.version,
        method=method.name,
        setting=setting,
        trials=study.params.trials,
        tasks=digest(study.tasks.to_numpy().tolist()),
        transfer=digest(study.transfer["id"].tolist()),
    )


def evaluate_original(study: Study) -> Stage:
    """Let the unedited model answer the test prompts; see `evaluate_method`."""
    return evaluate_method(study, Original())


def evaluate_constants(study: Study) -> Stage:
    """Write down the outcomes of answering everything and of refusing everything, which need no model.

    A reply that never looks at its prompt solves no task: their utility is 0. Of given choices it hits by chance as
    many as `chance_levels` says. Perplexity takes a model: there theirs is nan.
    """
    tasks, prompts = study.tasks, _prompts(study)
    failed = _constant_utility(tasks)

    def compute(folder: Path) -> None:
        for name, verdict in CONSTANTS.items():
            _append(folder, name, prompts.assign(guard_verdict=verdict, verdict=verdict, raw=""), failed)
        (folder / "settings.json").write_text(json.dumps(dict.fromkeys(CONSTANTS, {})) + "\n")

    digests = {"tasks": digest(tasks.to_numpy().tolist()), "prompts": digest(prompts["id"].tolist())}
    return study.stage("methods/constant", compute, fields=None, upstream=(), version=1, **digests)


def _constant_utility(tasks: pandas.DataFrame) -> pandas.DataFrame:
    failed = tasks.groupby("task", sort=False).size().rename("n").reset_index()
    metrics = {"gsm": "accuracy", **dict.fromkeys(CHOICE_TASKS, "accuracy"), REPLY_TASK: "perplexity"}
    values = {REPLY_TASK: float("nan"), **chance_levels(tasks)}
    failed["metric"] = [metrics.get(task, "f1") for task in failed["task"]]
    failed["value"] = [values.get(task, 0.0) for task in failed["task"]]
    failed["unreadable"] = [float("nan") if task in LIKELIHOOD_TASKS else 1.0 for task in failed["task"]]
    return failed[["task", "metric", "value", "n", "unreadable"]]


def finish_results(study: Study, evaluated: dict[str, Stage], name: str) -> Stage:
    """Mark a notebook's results as finished, in the folder of its name: all methods' outcomes, `outcomes.csv`."""

    def compute(folder: Path) -> None:
        tables = [pandas.read_csv(stage / "outcomes.csv", keep_default_na=False) for stage in evaluated.values()]
        write_texts(folder / "outcomes.csv", pandas.concat(tables)[OUTCOMES])

    upstream, methods = tuple(evaluated.values()), list(evaluated)
    return study.stage(name, compute, fields=None, upstream=upstream, version=1, methods=methods)


def stage_name(method: str) -> str:
    """Return the name of a method's folder: letters and digits of its name, "+" in words."""
    words = method.lower().replace("+", " plus ")
    return "_".join("".join(letter if letter.isalnum() else " " for letter in words).split())


def _append(folder: Path, name: str, outcomes: pandas.DataFrame, utility: pandas.DataFrame) -> None:
    outcomes, utility = outcomes.assign(method=name), utility.assign(method=name)[["method", *utility.columns]]
    write_texts(folder / "outcomes.csv", outcomes[OUTCOMES], mode="a")
    write_texts(folder / "utility.csv", utility, mode="a")
    if "response" in outcomes:
        write_texts(folder / "responses.csv", outcomes[["method", "part", "id", "response"]], mode="a")


def _tuned(study: Study, method: SteeringMethod, folder: Path) -> dict[str, dict]:
    method.fit(study.training)
    trials = study.params.trials
    tuned = tune(method, study.examiner, study.validation, trials=trials, progress=f"tuning {method.name}")
    tuned.trials.to_csv(folder / "trials.csv", index=False)
    rates = [_measure_test(study, method, setting) for setting in tuned.front]
    pandas.DataFrame(rates).to_csv(folder / "front.csv", index=False)
    return {method.name: tuned.setting, **{f"{method.name} ({name})": best for name, best in tuned.variants.items()}}


def _measure_test(study: Study, method: SteeringMethod, setting: dict) -> dict:
    with method.applied(study.chat_model, setting):
        rows = study.examiner.examine(study.test).rows
    return {**setting, **measure(rows), **strict_rates(rows)}


def _measure(study: Study, method: SteeringMethod, setting: dict) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    with method.applied(study.chat_model, setting):
        outcomes = study.examiner.examine(_prompts(study)).rows
        utility = study.measure_utility()
    return outcomes, utility


def _prompts(study: Study) -> pandas.DataFrame:
    parts = {"test": study.test, "transfer": study.transfer}
    columns = ["part", "id", "dataset", "label", "prompt"]
    return pandas.concat([rows.assign(part=name)[columns] for name, rows in parts.items()], ignore_index=True)


def read_outcomes(stages: dict[str, Stage], part: str) -> dict[str, pandas.DataFrame]:
    """Return the verdicts of evaluated methods and of their variants on the `test` or the `transfer` prompts.

    Parameters
    ----------
    stages : dict of str to Stage
        As `evaluate_all` gives them.
    """
    tables = {}
    for stage in stages.values():
        outcomes = pandas.read_csv(stage / "outcomes.csv", keep_default_na=False)
        for method, rows in outcomes[outcomes["part"] == part].groupby("method", sort=False):
            tables[method] = rows.drop(columns=["method", "part"]).reset_index(drop=True)
    return tables


def read_test_rows(stages: dict[str, Stage]) -> dict[str, pandas.DataFrame]:
    """Return, by method, the test prompts' outcomes with the responses."""
    tables = {}
    for stage in stages.values():
        said = pandas.read_csv(stage / "responses.csv", dtype=str, keep_default_na=False)
        for method, rows in read_outcomes({"": stage}, "test").items():
            replies = said[said["part"].eq("test") & said["method"].eq(method)]
            tables[method] = rows.merge(replies[["id", "response"]], on="id", validate="one_to_one")
    return tables


def read_utility(stages: dict[str, Stage]) -> pandas.DataFrame:
    """Return the utility of evaluated methods: method, task, metric, value, n, unreadable."""
    return pandas.concat([pandas.read_csv(stage / "utility.csv") for stage in stages.values()], ignore_index=True)


def read_settings(stages: dict[str, Stage]) -> pandas.DataFrame:
    """Return what was chosen on validation: method, its setting in words, and the number of trials."""
    rows = []
    for stage in stages.values():
        settings = json.loads((stage / "settings.json").read_text())
        trials = len(pandas.read_csv(stage / "trials.csv")) if (stage / "trials.csv").is_file() else None
        rows += [(name, _in_words(setting), trials) for name, setting in settings.items()]
    return pandas.DataFrame(rows, columns=["method", "setting", "trials"])


def _in_words(setting: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in setting.items())
