"""LLM-VA-R taken apart: what soft margins and the ridge edit do alone and together, and what they rest on."""

from functools import partial

import pandas

from llmva.core.params import SOFT_PENALTY
from llmva.core.store import Stage
from llmva.core.vocabulary import MOVED_LOOP, ORIGINAL, PAPER_LOOP
from llmva.measures.metrics import measure
from llmva.measures.shares import share_kept
from llmva.study.evaluation import (
    evaluate_baseline,
    evaluate_loop,
    read_outcomes,
    read_utility,
    stage_name,
)
from llmva.study.loop_variants import (
    IN_FULL,
    LLM_VA_R,
    PAPER,
    RIDGE,
    RMS,
    RMS_RIDGE,
    SOFT_SVM,
    Variant,
    read_loop,
    run_llm_va_r,
    run_variant,
)
from llmva.study.records import HEALTH, lengthen, record
from llmva.study.side_by_side import compute_ahead
from llmva.study.study import Study
from llmva.study.trade_off import evaluate_moved, read_beta

R = LLM_VA_R.changes
ARITHMETIC = "gsm"
# The loops whose log is tracked.
LOGGED = (PAPER_LOOP, LLM_VA_R.name)
# Those that a first look at other organisms' validation prompts left in the running.
COMPARED_BASELINES = ("AlphaSteer", "AlphaSteer+", "Fine-tuning")
# Run for each candidate number of sublayers, as LLM-VA-R is.
PARTS = (IN_FULL, RMS, SOFT_SVM, RIDGE, RMS_RIDGE)
# Run with the number of sublayers that LLM-VA-R chose.
CONTROLS = (
    Variant("without arithmetic in the neutral text", {**R, "neutral_left_out": (ARITHMETIC,)}),
    Variant("lambda 0", {**R, "neutral_weight": 0.0}),
    Variant("lambda 0.1", {**R, "neutral_weight": 0.1}),
    Variant("lambda 10", {**R, "neutral_weight": 10.0}),
    Variant("mu 0.1", {**R, "damping": 0.1}),
    Variant("shuffled labels", {**R, "shuffled": True}),
)


def describe_variants(study: Study) -> pandas.DataFrame:
    """Return what each variant changes in the paper's loop: one row per variant, one column per setting."""
    rows = {}
    for variant in (PAPER, *PARTS, LLM_VA_R, *controls_of(study)):
        penalty = study.settings(1, 1, **variant.changes).observation.penalty
        rows[variant.name] = variant.changes | ({"penalty": penalty} if penalty != study.params.svm.penalty else {})
    return pandas.DataFrame.from_dict(rows, orient="index").fillna("")


def controls_of(study: Study) -> tuple[Variant, ...]:
    """Return the controls of a study's LLM-VA-R.

    The one without arithmetic needs some in the neutral text; the organisms' C is one where the study's is another.
    """
    has_arithmetic = ARITHMETIC in set(study.neutral["task"])
    controls = tuple(variant for variant in CONTROLS if has_arithmetic or "neutral_left_out" not in variant.changes)
    other_penalty = Variant(f"C {SOFT_PENALTY}", {**R, "penalty": SOFT_PENALTY})
    return (*controls, other_penalty) if study.params.ridge.penalty != SOFT_PENALTY else controls


def run_parts(study: Study) -> dict[str, Stage]:
    """Run LLM-VA, each half of LLM-VA-R and of the first design of it alone, and both together, all in the same way."""
    compute_ahead(study, [run_llm_va_r, *(partial(_run_part, variant=variant) for variant in PARTS)])
    parts = {variant.name: _run_part(study, variant) for variant in PARTS}
    return {**parts, LLM_VA_R.name: run_llm_va_r(study)}


def run_controls(study: Study, aligned_r: Stage) -> dict[str, Stage]:
    """Vary lambda, mu, C and the neutral text, and shuffle the labels."""
    l_selects, variants = [read_loop(aligned_r).choice.l_select], controls_of(study)
    compute_ahead(study, [partial(_run_part, variant=variant, l_selects=l_selects) for variant in variants])
    return {variant.name: _run_part(study, variant, l_selects) for variant in variants}


def evaluate_parts(study: Study, loops: dict[str, Stage]) -> dict[str, Stage]:
    """Evaluate the original, some baselines and each loop's chosen iteration on test and transfer prompts and tasks.

    LLM-VA-R has a second row, with its last edit moved by the beta that validation chose.
    """
    compute_ahead(study, [partial(evaluate_baseline, name=name) for name in (*COMPARED_BASELINES[::-1], ORIGINAL)])
    evaluated = {name: evaluate_baseline(study, name) for name in (ORIGINAL, *COMPARED_BASELINES)}
    evaluated |= {name: evaluate_loop(study, name, stage) for name, stage in loops.items()}
    return evaluated | {MOVED_LOOP: evaluate_moved(study, loops[LLM_VA_R.name])}


def record_parts(study: Study, loops: dict[str, Stage], evaluated: dict[str, Stage]) -> pandas.DataFrame:
    """Write figure 13: every variant's validation F1 by iteration, and its test, transfer and utility figures.

    Returns
    -------
    DataFrame
        By method and variant: strict F1 on test and transfer prompts, ASR, ORR and degenerate share on test,
        utility kept over all tasks and on arithmetic (nan where the data has none); of loops the chosen iteration and
        number of sublayers, the iteration of the stop rule (nan where it never struck), and the best validation strict
        F1 in all, before that iteration, and within as many iterations as LLM-VA-R has; of LLM-VA-R with a beta the
        one that was chosen.
    """
    # Data without tasks give a table of no columns, and nothing that could be kept.
    outcomes, transfer = read_outcomes(evaluated, "test"), read_outcomes(evaluated, "transfer")
    utility = read_utility(evaluated).pivot(index="method", columns="task", values="value").reindex(list(outcomes))
    kept = share_kept(utility, utility.loc[ORIGINAL])
    short = study.params.ridge.iterations
    rows = {
        name: _summary(outcomes[name], transfer.get(name), kept.loc[name])
        | (_course(loops[name], short) if name in loops else {})
        for name in (ORIGINAL, *COMPARED_BASELINES, *loops, MOVED_LOOP)
    }
    rows[MOVED_LOOP]["beta"] = read_beta(evaluated[MOVED_LOOP])
    table = pandas.DataFrame.from_dict(rows, orient="index").rename_axis("method")
    curves = [lengthen(_logged(name, loop)).assign(method=name) for name, loop in loops.items()]
    frame = pandas.concat([lengthen(table), *curves])
    # By the first word of the metric; all else that a loop has was seen on validation prompts.
    counts = {"test": len(study.test), "transfer": len(study.transfer), "kept": len(study.tasks)}
    first = frame["metric"].str.split("_").str[0]
    frame["dataset"] = first.where(first.isin(list(counts)), "validation")
    record(study, "ridge", frame.assign(n=frame["dataset"].map({**counts, "validation": len(study.validation)})))
    return table.rename_axis(None)


def _run_part(study: Study, variant: Variant, l_selects: list[int] | None = None) -> Stage:
    l_selects = l_selects or study.params.probe.l_select
    return run_variant(study, variant, l_selects, study.params.ridge.iterations, f"13_parts/{stage_name(variant.name)}")


def _logged(name: str, loop: Stage) -> pandas.DataFrame:
    history = read_loop(loop).history
    return history[["strict_f1", *((*HEALTH, "mean_accuracy_benign") if name in LOGGED else ())]]


def _summary(test: pandas.DataFrame, transfer: pandas.DataFrame | None, kept: pandas.Series) -> dict[str, float]:
    measured = measure(test)
    return {
        "test_strict_f1": measured["strict_f1"],
        "transfer_strict_f1": measure(transfer)["strict_f1"] if transfer is not None else float("nan"),
        **{f"test_{name}": measured[name] for name in ("asr", "orr", "degenerate")},
        "kept": float(kept.mean()) if len(kept) else float("nan"),
        "kept_gsm": float(kept.get(ARITHMETIC, float("nan"))),
    }


def _course(loop: Stage, short: int) -> dict[str, float]:
    finished = read_loop(loop)
    stop, scores = finished.stop_iteration(), finished.history["strict_f1"]
    return {
        "iteration": finished.choice.best_iteration,
        "l_select": finished.choice.l_select,
        "stop_rule": float("nan") if stop is None else stop,
        "best_validation": scores.max(),
        "best_before_stop": scores.max() if stop is None else scores.loc[: stop - 1].max(),
        f"best_within_{short}": scores.loc[:short].max(),
    }
