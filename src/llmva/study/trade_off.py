"""The trade-off between both failures: LLM-VA-R's last edit moved, and every method's settings along it."""

import json
from pathlib import Path

import pandas

from llmva.core.store import Stage
from llmva.core.vocabulary import MOVED_LOOP, ORIGINAL, OUR_LOOP, PAPER_LOOP, STRICT_RATES
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog
from llmva.measures.frontier import hypervolume
from llmva.measures.metrics import measure, strict_rates
from llmva.method.iteration import Observer
from llmva.method.trade_off import TradeOff, solve_offsets
from llmva.steering.moved import BETAS, Moved
from llmva.steering.search import tune
from llmva.study.evaluation import evaluate_method, read_outcomes
from llmva.study.loop_variants import LLM_VA_R, read_loop
from llmva.study.records import record
from llmva.study.study import Study

OFFSETS = "offsets.safetensors"
# Of one setting each, so that their front is a point.
POINTS = (ORIGINAL, PAPER_LOOP, OUR_LOOP)


def solve_trade_off(study: Study, loop: Stage) -> Stage:
    """Solve for what a beta of 1 adds to the last edit of LLM-VA-R's chosen iteration: `offsets.safetensors`."""

    def compute(folder: Path) -> None:
        observation = study.settings(1, 1, **LLM_VA_R.changes).observation
        with EditedModel(study.chat_model.writers) as edited:
            observer = Observer(study.examiner, edited, study.pool, observation, study.neutral)
            solve_offsets(observer, _chosen_log(loop)).save(folder / OFFSETS, study.log_metadata)

    fields = ("seed", "sample_per_dataset", "ridge")
    return study.stage("trade_off", compute, fields=fields, upstream=(study.prompts_stage, loop), version=1)


def read_trade_off(loop: Stage, solved: Stage) -> TradeOff:
    """Read what `solve_trade_off` has solved, beside the loop that it belongs to."""
    return TradeOff(_chosen_log(loop), EditLog.load(solved / OFFSETS))


def trace_trade_off(study: Study, loop: Stage, solved: Stage) -> Stage:
    """Look at validation prompts with each beta: `trials.csv`, one row each; see `read_trials`."""

    def compute(folder: Path) -> None:
        method = Moved(read_trade_off(loop, solved))
        options = {"trials": len(BETAS), "progress": "the trade-off"}
        tune(method, study.examiner, study.validation, **options).trials.to_csv(folder / "trials.csv", index=False)

    upstream = (study.prompts_stage, loop, solved)
    return study.stage("trade_off_trials", compute, fields=(), upstream=upstream, version=Moved.version)


def evaluate_moved(study: Study, loop: Stage, beta: float | None = None) -> Stage:
    """Let LLM-VA-R answer the test prompts with a beta, or with one chosen on validation; see `evaluate_method`."""
    solved = solve_trade_off(study, loop)
    setting = None if beta is None else {"beta": beta}
    return evaluate_method(study, Moved(read_trade_off(loop, solved)), setting=setting, upstream=(loop, solved))


def read_beta(evaluated: Stage) -> float:
    """Return the beta that `evaluate_moved` has evaluated."""
    return json.loads((evaluated / "settings.json").read_text())[MOVED_LOOP]["beta"]


def read_trials(traced: Stage) -> pandas.DataFrame:
    """Return the validation metrics of every beta, in their order, indexed by beta."""
    return pandas.read_csv(traced / "trials.csv").set_index("beta").sort_index()


def record_trials(study: Study, evaluated: Stage) -> pandas.DataFrame:
    """Write both failures on validation prompts by beta, `trade_off.csv`, and return them with the other metrics."""
    trials = read_trials(evaluated)
    shown = ["asr", "orr", *STRICT_RATES, "degenerate", "strict_f1"]
    rows = trials[shown].melt(var_name="metric", ignore_index=False).reset_index().assign(method=MOVED_LOOP)
    record(study, "trade_off", rows.assign(n=len(study.validation)), dataset="validation")
    return trials


def record_frontiers(study: Study, evaluated: dict[str, Stage]) -> pandas.DataFrame:
    """Write the figures of every method's front on the test prompts, and the strict F1 of its chosen setting.

    A front is made of the settings that no other one of the method beat on validation. Of methods with one setting it
    is a point.

    Returns
    -------
    DataFrame
        By method: the number of `settings` on its front, their `hypervolume`, and `strict_f1` of the chosen one.
    """
    outcomes = read_outcomes(evaluated, "test")
    fronts = {name: _front_of(stage, outcomes[name]) for name, stage in evaluated.items() if _has_front(name, stage)}
    rows = pandas.concat(fronts, names=["method", "trial"]).melt(var_name="metric", ignore_index=False).reset_index()
    chosen = {name: measure(outcomes[name])["strict_f1"] for name in fronts}
    scores = pandas.DataFrame({"method": list(chosen), "metric": "strict_f1", "value": list(chosen.values())})
    labels = study.test["label"].map({"toxic": STRICT_RATES[0], "benign": STRICT_RATES[1]}).value_counts()
    frame = pandas.concat([rows, scores], ignore_index=True)
    frame["n"] = frame["metric"].map(labels).fillna(len(study.test)).astype(int)
    record(study, "frontier", frame, dataset="test")
    areas = {name: hypervolume(front.to_numpy()) for name, front in fronts.items()}
    table = {
        "settings": {name: len(front) for name, front in fronts.items()},
        "hypervolume": areas,
        "strict_f1": chosen,
    }
    return pandas.DataFrame(table).sort_values("hypervolume", ascending=False)


def _chosen_log(loop: Stage) -> EditLog:
    finished = read_loop(loop)
    return finished.log.at_iteration(finished.choice.best_iteration)


def _has_front(name: str, stage: Stage) -> bool:
    return name in POINTS or (stage / "front.csv").is_file()


def _front_of(stage: Stage, outcomes: pandas.DataFrame) -> pandas.DataFrame:
    if (stage / "front.csv").is_file():
        return pandas.read_csv(stage / "front.csv")[list(STRICT_RATES)]
    return pandas.DataFrame([strict_rates(outcomes)])
