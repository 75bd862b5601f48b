"""Alignment loops as stages: the paper's, ours, and every variation that an ablation asks for."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas

from llmva.core import vocabulary
from llmva.core.store import Stage, run_stage
from llmva.core.vocabulary import OUR_LOOP
from llmva.edits.log import EditLog
from llmva.judging.examiner import Examination
from llmva.judging.judges import CombinedJudge, Judge
from llmva.method.loop import STAGE_VERSION, Alignment, align, choose_iteration
from llmva.models.activations import Capture
from llmva.study.study import Study

VERSION = 1


@dataclass(frozen=True)
class Variant:
    """A way to run the loop.

    Attributes
    ----------
    name : str
        As in tables and figures.
    changes : dict
        Fields of `AlignmentSettings` that differ from the paper's loop.
    """

    name: str
    changes: dict


# On features of unit length, C = 0.1 leaves margins soft: one direction then carries most of the decision.
SOFT = {"feature_scale": "length", "penalty": 0.1}
SOFT_SVM = Variant("soft SVM", SOFT)
RMS = Variant("RMS", {"feature_scale": "rms"})
# The paper's loop with each candidate for L_select run in full, as LLM-VA-R's are; and as many trials.
IN_FULL = Variant("LLM-VA, L_select in full", {})
RIDGE = Variant("ridge edit", {"update": "ridge"})
RMS_RIDGE = Variant("RMS and ridge", {"feature_scale": "rms", "update": "ridge"})
LLM_VA_R = Variant(OUR_LOOP, {**SOFT, "update": "ridge"})
# The released code's loop: capture after Gemma-2's post-norms, the guard's word also on broken replies,
# liblinear, edits rounded in place, loose F1.
RELEASED = Variant(
    vocabulary.RELEASED,
    {
        "basis": "residual",
        "labels": "guard_verdict",
        "solver": "liblinear",
        "rounding": "bfloat16",
        "selection": "paper",
    },
)


def run_variant(study: Study, variant: Variant, l_selects: list[int], iterations: int, folder: str) -> Stage:
    """Run a variant of the loop for each number of sublayers and keep the best on validation.

    Writes `edit_log.safetensors` of the best, `history.csv` of all (l_select, iteration, metrics) and
    `choice.json`: l_select, best_iteration, stopped.
    """

    def compute(place: Path) -> None:
        count = len(study.chat_model.sublayers)
        runs = {
            l_select: run_loop(study, l_select, iterations, title=f"{variant.name}, {l_select}", **variant.changes)
            for l_select in sorted({min(candidate, count) for candidate in l_selects})
        }
        best = max(runs, key=lambda l_select: (_score(runs[l_select]), -l_select))
        chosen = runs[best]
        chosen.log.save(place / "edit_log.safetensors", study.log_metadata)
        pandas.concat({key: run.history for key, run in runs.items()}, names=["l_select"]).to_csv(place / "history.csv")
        choice = {
            "best_iteration": chosen.best_iteration,
            "l_select": best,
            "stopped": chosen.stopped,
            "rounding": settings.rounding,
        }
        (place / "choice.json").write_text(json.dumps(choice) + "\n")

    settings = study.settings(1, iterations, **variant.changes)
    parameters = {
        "loop": STAGE_VERSION,
        "l_selects": l_selects,
        "settings": {name: value for name, value in vars(settings).items() if name != "l_select"},
        **study.identity(),
    }
    return run_stage(
        study.folder / folder, compute, parameters=parameters, upstream=[study.prompts_stage], version=VERSION
    )


def run_released(study: Study, l_select: int) -> Stage:
    """Run the loop as the released code does, with the number of sublayers that the paper's loop got."""
    return run_variant(study, RELEASED, [l_select], study.params.iterations, "llm_va_released_code")


def run_llm_va_r(study: Study) -> Stage:
    """Run LLM-VA-R for each candidate number of sublayers; see `run_variant`."""
    return run_variant(study, LLM_VA_R, study.params.probe.l_select, study.params.ridge.iterations, "llm_va_r")


def run_loop(
    study: Study,
    l_select: int,
    iterations: int,
    *,
    title: str | None = None,
    judge: Judge | CombinedJudge | None = None,
    originals: dict[Capture, Examination] | None = None,
    **changes,
) -> Alignment:
    """Run the loop with changed settings or another judge; its iterations are kept and shared by all runs.

    For `originals` see `align`.
    """
    examiner = study.examiner if judge is None else study.examiner.with_judge(judge)
    return align(
        examiner,
        study.pool,
        study.settings(l_select, iterations, **changes),
        # Another judge gives other verdicts, so its iterations have a place of their own.
        folder=study.folder / "iterations" / ("" if judge is None else judge.name.replace(":", "-")),
        upstream=(study.prompts_stage,),
        neutral=study.neutral,
        originals=originals,
        progress=title or f"L_select {l_select}",
    )


def read_loop(stage: Stage) -> tuple[EditLog, dict, pandas.DataFrame]:
    """Return a finished loop's edit log, its choice, and its history (of the chosen number of sublayers)."""
    log = EditLog.load(stage / "edit_log.safetensors")
    choice = json.loads((stage / "choice.json").read_text())
    history = pandas.read_csv(stage / "history.csv")
    if "l_select" in history:
        history = history[history["l_select"] == choice["l_select"]].drop(columns="l_select")
    return log, choice, history.set_index("iteration")


def selected_iteration(stage: Stage, selection: str) -> int:
    """Return the iteration of a finished loop that a selection (`strict`, `guarded`, `paper`) chooses."""
    return choose_iteration(read_loop(stage)[2], selection)


def stop_iteration(history: pandas.DataFrame, drop: float = 0.1) -> int | None:
    """Return the first iteration at which v_a's mean validation accuracy lies `drop` below its start, if any."""
    fallen = history["mean_accuracy_answer"] < history["mean_accuracy_answer"].iloc[0] - drop
    return int(fallen.idxmax()) if fallen.any() else None


def _score(run: Alignment) -> float:
    return float(run.history.loc[run.best_iteration, "strict_f1"])
