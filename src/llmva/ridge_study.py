"""LLM-VA-R taken apart: what soft margins and the ridge edit do alone and together, and what they rest on."""

import pandas

from llmva.evaluation import evaluate_method, stage_name
from llmva.loops import (
    LLM_VA_R,
    RIDGE,
    RMS_RIDGE,
    SOFT_SVM,
    Variant,
    align_r,
    read_loop,
    run_variant,
    stop_iteration,
)
from llmva.metrics import measure
from llmva.readers import read_outcomes, read_utility
from llmva.results import write_results
from llmva.steering import METHODS, LlmVa, Original
from llmva.store import Stage
from llmva.study import Study

R = LLM_VA_R.changes
# Those that a first look at other organisms' validation prompts left in the running.
BASELINES = ("AlphaSteer", "AlphaSteer+", "Fine-tuning")
# Run with the number of sublayers that LLM-VA-R chose.
CONTROLS = (
    Variant("without arithmetic in the neutral text", {**R, "neutral_left_out": ("gsm",)}),
    Variant("lambda 0", {**R, "neutral_weight": 0.0}),
    Variant("lambda 0.1", {**R, "neutral_weight": 0.1}),
    Variant("lambda 10", {**R, "neutral_weight": 10.0}),
    Variant("mu 0.1", {**R, "damping": 0.1}),
    Variant("shuffled labels", {**R, "shuffled": True}),
)


def run_parts(study: Study) -> dict[str, Stage]:
    """Run each half of LLM-VA-R alone, the first design of it, and both halves together, all in the same way."""
    params = study.params
    parts = {
        variant.name: run_variant(
            study, variant, params.probe.l_select, params.ridge.iterations, f"13_parts/{stage_name(variant.name)}"
        )
        for variant in (SOFT_SVM, RIDGE, RMS_RIDGE)
    }
    return {**parts, LLM_VA_R.name: align_r(study)}


def run_controls(study: Study, aligned_r: Stage) -> dict[str, Stage]:
    """Vary lambda, mu and the neutral text, and shuffle the labels."""
    l_select = read_loop(aligned_r)[1]["l_select"]
    return {
        variant.name: run_variant(
            study, variant, [l_select], study.params.ridge.iterations, f"13_parts/{stage_name(variant.name)}"
        )
        for variant in CONTROLS
    }


def evaluate_parts(study: Study, loops: dict[str, Stage]) -> dict[str, Stage]:
    """Evaluate the original, some baselines and each loop's chosen iteration on test and transfer prompts and tasks."""
    evaluated = {"Original": evaluate_method(study, Original())}
    evaluated |= {name: evaluate_method(study, METHODS[name]()) for name in BASELINES}
    for name, stage in loops.items():
        log, choice, _ = read_loop(stage)
        setting = {"iteration": choice["best_iteration"]}
        evaluated[name] = evaluate_method(study, LlmVa(log, name), setting=setting, upstream=(stage,))
    return evaluated


def record_parts(study: Study, loops: dict[str, Stage], evaluated: dict[str, Stage]) -> pandas.DataFrame:
    """Write figure 13: every variant's validation F1 by iteration, and its test, transfer and utility figures.

    Returns
    -------
    DataFrame
        By method and variant: strict F1 on test and transfer prompts, ASR, ORR and degenerate share on test,
        utility kept over all tasks and on arithmetic; of loops the chosen iteration and number of sublayers, the
        iteration of the stop rule, and the best validation strict F1 in all and until that iteration.
    """
    # Data without tasks give a table of no columns, and nothing that could be kept.
    outcomes, transfer = read_outcomes(evaluated, "test"), read_outcomes(evaluated, "transfer")
    utility = read_utility(evaluated).pivot(index="method", columns="task", values="value").reindex(list(outcomes))
    kept = utility / utility.loc["Original"]
    names = ["Original", *BASELINES, *loops]
    table = pandas.DataFrame.from_dict(
        {name: _summary(outcomes[name], transfer.get(name), kept.loc[name]) for name in names}, orient="index"
    )
    table = table.join(
        pandas.DataFrame.from_dict({name: _course(loop) for name, loop in loops.items()}, orient="index")
    )
    final = table.rename_axis("method").reset_index().melt("method", var_name="metric").dropna()
    curves = []
    for name, stage in loops.items():
        history = read_loop(stage)[2]
        metrics = [f"strict_f1.{iteration:03d}" for iteration in history.index]
        curves.append(pandas.DataFrame({"metric": metrics, "value": history["strict_f1"].to_numpy(), "method": name}))
    frame = pandas.concat([final, *curves]).assign(dataset="all", n=len(study.test), seed=study.params.seed)
    write_results(study.params.slug, "ridge", frame)
    return table


def _summary(test: pandas.DataFrame, transfer: pandas.DataFrame | None, kept: pandas.Series) -> dict[str, float]:
    measured = measure(test)
    return {
        "test_strict_f1": measured["strict_f1"],
        "transfer_strict_f1": measure(transfer)["strict_f1"] if transfer is not None else float("nan"),
        **{f"test_{name}": measured[name] for name in ("asr", "orr", "degenerate")},
        "kept": float(kept.mean()) if len(kept) else float("nan"),
        "kept_gsm": float(kept.get("gsm", float("nan"))),
    }


def _course(loop: Stage) -> dict[str, float]:
    _, choice, history = read_loop(loop)
    stop = stop_iteration(history)
    return {
        "iteration": choice["best_iteration"],
        "l_select": choice["l_select"],
        "stop_rule": stop,
        "best_validation": history["strict_f1"].max(),
        "best_until_stop": history["strict_f1"].loc[:stop].max(),
    }
