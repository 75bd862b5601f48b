"""Alignment loops as stages: the paper's, ours, and every variation that an ablation asks for."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import pandas
from safetensors.numpy import load_file

from llmva.core.store import Stage
from llmva.core.vocabulary import OUR_LOOP, PAPER_LOOP, RELEASED_LOOP
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog
from llmva.judging.examiner import Examination
from llmva.judging.judges import CombinedJudge, Judge
from llmva.method.loop import LOOP_VERSION, Alignment, align, choose_iteration
from llmva.models.activations import FINAL, Capture
from llmva.study.side_by_side import compute_ahead
from llmva.study.stages import observe_original
from llmva.study.study import Study

PAPER_STAGE = "04_alignment_loop"


@dataclass(frozen=True)
class Variant:
    """A way to run the loop.

    Attributes
    ----------
    name : str
        As in tables and figures.
    changes : dict
        Fields of `LoopSettings` and `ObservationSettings` that differ from the paper's loop.
    """

    name: str
    changes: dict


PAPER = Variant(PAPER_LOOP, {})
# On features of unit length, C of `StudyParams.ridge` leaves margins soft: one direction carries most of the decision.
SOFT = {"feature_scale": "length"}
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
    RELEASED_LOOP,
    {
        "basis": "residual",
        "labels": "guard_verdict",
        "solver": "liblinear",
        "rounding": "bfloat16",
        "selection": "paper",
    },
)


def probe_layers(study: Study) -> Stage:
    """Give each candidate L_select a few iterations and choose by validation.

    Writes `probes.csv` (l_select, iteration, validation metrics) and `choice.json`: `l_select`, and `sublayers`, 2L.
    A candidate larger than the number of sublayers counts as all of them.
    """
    params = study.params

    def compute(folder: Path) -> None:
        candidates = within(study, params.probe.l_select)
        compute_ahead(study, [partial(_probe, l_select=candidate) for candidate in candidates])
        probes = {candidate: _probe(study, candidate).history for candidate in candidates}
        table = pandas.concat(probes, names=["l_select"]).reset_index()
        table.to_csv(folder / "probes.csv", index=False)
        # Iteration 0 is the same model for all; the later ones tell the candidates apart, if there are any.
        later = table[table["iteration"] > 0]
        best = later.groupby("l_select")["strict_f1"].max() if len(later) else pandas.Series(0.0, index=candidates)
        choice = {"l_select": int(best.idxmax()), "sublayers": len(study.chat_model.sublayers)}
        (folder / "choice.json").write_text(json.dumps(choice) + "\n")

    fields = ("seed", "sample_per_dataset", "svm", "selection", "probe")
    return study.stage("03_layer_selection", compute, fields=fields, version=2, loop=LOOP_VERSION)


def _probe(study: Study, l_select: int) -> Alignment:
    return run_loop(study, l_select, study.params.probe.iterations)


def chosen_l_select(study: Study) -> int:
    """Return the number of sublayers that `probe_layers` chooses."""
    return json.loads((probe_layers(study) / "choice.json").read_text())["l_select"]


def run_alignment(study: Study, l_select: int | None = None) -> Stage:
    """Run the paper's loop to the end, with the number of sublayers that validation chose, or another one.

    Writes what every loop leaves (see `write_loop`), and `plane.csv`: projections on the original's final v_b and
    v_a for the validation prompts, before and after.
    """
    l_select = l_select or chosen_l_select(study)

    def compute(folder: Path) -> None:
        aligned = write_loop(study, folder, PAPER, [l_select], study.params.iterations)
        _plane(study, aligned).to_csv(folder / "plane.csv", index=False)

    fields = ("seed", "sample_per_dataset", "svm", "selection", "iterations")
    return study.stage(PAPER_STAGE, compute, fields=fields, version=2, loop=LOOP_VERSION, l_select=l_select)


def run_variant(study: Study, variant: Variant, l_selects: list[int], iterations: int, name: str) -> Stage:
    """Run a variant of the loop for each number of sublayers and keep the best; see `write_loop`."""
    settings = study.settings(1, iterations, **variant.changes)
    described = {"iterations": iterations, "selection": settings.selection, **asdict(settings.observation)}

    def compute(folder: Path) -> None:
        write_loop(study, folder, variant, l_selects, iterations)

    return study.stage(name, compute, version=1, loop=LOOP_VERSION, l_selects=l_selects, settings=described)


def run_released(study: Study) -> Stage:
    """Run the loop as the released code does, with the number of sublayers that the paper's loop got."""
    return run_variant(study, RELEASED, [chosen_l_select(study)], study.params.iterations, "llm_va_released_code")


def run_llm_va_r(study: Study) -> Stage:
    """Run LLM-VA-R for each candidate number of sublayers."""
    return run_variant(study, LLM_VA_R, study.params.probe.l_select, study.params.ridge.iterations, "llm_va_r")


def within(study: Study, l_selects: Iterable[int]) -> list[int]:
    """Return numbers of sublayers in order; one above all that the model has counts as all of them."""
    count = len(study.chat_model.sublayers)
    return sorted({min(l_select, count) for l_select in l_selects})


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
    examiner = study.examiner if judge is None else replace(study.examiner, judge=judge)
    return align(
        examiner,
        study.pool,
        study.settings(l_select, iterations, **changes),
        # Another judge gives other verdicts, so its iterations are kept in another folder.
        folder=study.folder / "iterations" / ("" if judge is None else judge.name.replace(":", "-")),
        upstream=(study.prompts_stage,),
        neutral=study.neutral,
        originals=originals,
        progress=title or f"L_select {l_select}",
    )


@dataclass(frozen=True)
class Choice:
    """What validation chose in a finished loop: `choice.json`.

    Attributes
    ----------
    best_iteration, l_select : int
        The iteration, 0 being the original, and the number of sublayers edited in each.
    stopped : str
        Why the loop ended.
    rounding : str
        See `ObservationSettings`.
    """

    best_iteration: int
    l_select: int = 0
    stopped: str = ""
    rounding: str = "none"

    def save(self, folder: Path) -> None:
        """Write the choice into a stage's folder."""
        (folder / "choice.json").write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, stage: Stage) -> Self:
        """Read a stage's choice."""
        return cls(**json.loads((stage / "choice.json").read_text()))


@dataclass(frozen=True)
class FinishedLoop:
    """What a loop's stage holds; the history is that of the chosen number of sublayers."""

    stage: Stage
    choice: Choice
    history: pandas.DataFrame

    @property
    def log(self) -> EditLog:
        """All iterations' edits."""
        return EditLog.load(self.stage / "edit_log.safetensors")

    def chosen_by(self, selection: str) -> int:
        """Return the iteration that a selection (`strict`, `guarded`, `paper`) chooses."""
        return choose_iteration(self.history, selection)

    def stop_iteration(self, drop: float = 0.1) -> int | None:
        """Return the first iteration at which v_a's mean validation accuracy lies `drop` below its start, if any."""
        accuracy = self.history["mean_accuracy_answer"]
        fallen = accuracy < accuracy.iloc[0] - drop
        return int(fallen.idxmax()) if fallen.any() else None


def write_loop(study: Study, folder: Path, variant: Variant, l_selects: Sequence[int], iterations: int) -> Alignment:
    """Run a variant for each number of sublayers and write the one that is best on validation.

    Writes `edit_log.safetensors` of the best, `history.csv` of all (l_select, iteration, metrics) and `choice.json`.
    A number larger than that of all sublayers counts as all of them.
    """
    runs = {
        l_select: run_loop(study, l_select, iterations, title=f"{variant.name}, {l_select}", **variant.changes)
        for l_select in within(study, l_selects)
    }
    best = max(runs, key=lambda l_select: (_score(runs[l_select]), -l_select))
    aligned = runs[best]
    aligned.log.save(folder / "edit_log.safetensors", study.log_metadata)
    pandas.concat({key: run.history for key, run in runs.items()}, names=["l_select"]).to_csv(folder / "history.csv")
    rounding = study.settings(best, iterations, **variant.changes).observation.rounding
    Choice(aligned.best_iteration, best, aligned.stopped, rounding).save(folder)
    return aligned


def read_loop(stage: Stage) -> FinishedLoop:
    """Read what `write_loop` wrote."""
    choice, history = Choice.load(stage), pandas.read_csv(stage / "history.csv")
    # Loops of earlier versions with one number of sublayers have no column that says which.
    if "l_select" in history:
        history = history[history["l_select"] == choice.l_select].drop(columns="l_select")
    return FinishedLoop(stage, choice, history.set_index("iteration"))


def _score(run: Alignment) -> float:
    return float(run.history.loc[run.best_iteration, "strict_f1"])


def _plane(study: Study, alignment: Alignment) -> pandas.DataFrame:
    vectors = load_file(observe_original(study) / "vectors.safetensors")
    tables = []
    with EditedModel(study.chat_model.writers) as edited:
        for when, log in (("before", EditLog()), ("after", alignment.best_log)):
            edited.apply(log)
            examined = study.examiner.examine(study.validation, Capture(outputs=False))
            final = examined.activations.outputs[FINAL]
            table = examined.rows[["id", "dataset", "label", "verdict"]].copy()
            for kind in ("benign", "answer"):
                table[kind] = final @ vectors[f"{FINAL}/{kind}"]
            tables.append(table.assign(when=when))
    return pandas.concat(tables, ignore_index=True)
