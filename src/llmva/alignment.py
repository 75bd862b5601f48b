"""The alignment loop: observe the model, fit its vectors, edit it, and do it again (paper 4.3).

One iteration is one cached observation. Its place is named by the digest of all that led to it,
so a killed run resumes where it was, runs that begin alike share their beginning, and every
iteration's model is a prefix of the edit log.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas
from safetensors.numpy import load_file, save_file

from llmva.activations import FINAL, Capture
from llmva.edits import EditedModel, EditLog, SublayerEdit, projection_scale, solve_edit
from llmva.examination import Examination, Examiner, answer_labels, benign_labels
from llmva.layers import score_sublayers, select_sublayers
from llmva.metrics import measure
from llmva.progress import progress_bar
from llmva.prompts import draw_sample
from llmva.store import Stage, run_stage, stage_key
from llmva.vectors import ControlVectors, find_control_vectors

STAGE_VERSION = 1
SELECTION_METRICS = {"strict": "strict_f1", "paper": "f1"}
LOWEST_F1 = 0.1


@dataclass(frozen=True)
class AlignmentSettings:
    """What determines an alignment besides the model, its judge and its prompts; see `StudyParams`."""

    l_select: int
    iterations: int
    sample_per_dataset: int
    solver: str
    penalty: float
    selection: str
    seed: int


@dataclass(frozen=True)
class Observation:
    """A model at one iteration: its vectors, scores and validation metrics, read from its stage.

    Attributes
    ----------
    sublayers : DataFrame
        Indexed by sublayer: outcomes, accuracies, angle, scale s, and the terms of the score.
    vectors : dict of str to ControlVectors
        By sublayer.
    metrics : dict
        On validation, as `measure` gives them.
    """

    stage: Stage
    sublayers: pandas.DataFrame
    vectors: dict[str, ControlVectors]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Alignment:
    """A finished loop.

    Attributes
    ----------
    log : EditLog
        All iterations' edits; the model of iteration t is `log.up_to(t)`.
    history : DataFrame
        One row per iteration, 0 being the original: validation metrics, sublayers edited and
        skipped, mean angle, scale and accuracies.
    best_iteration : int
        The earliest iteration with the highest selection metric.
    stopped : str
        Why the loop ended.
    """

    log: EditLog
    history: pandas.DataFrame
    best_iteration: int
    stopped: str

    @property
    def best_log(self) -> EditLog:
        """The edits of the chosen model."""
        return self.log.up_to(self.best_iteration)


def align(
    examiner: Examiner,
    pool: pandas.DataFrame,
    settings: AlignmentSettings,
    *,
    folder: Path,
    upstream: tuple[Stage, ...],
    progress: str | None = None,
) -> Alignment:
    """Run the loop of section 4.3 for `settings.iterations` edits, or until it must stop.

    Parameters
    ----------
    examiner : Examiner
        Holds the model; it is edited in place while this runs and restored afterwards.
    pool : DataFrame
        The study's prompts; training prompts teach, validation prompts choose.
    settings : AlignmentSettings
        See there.
    folder : Path
        Where iterations are kept.
    upstream : tuple of Stage
        What the first observation depends on: prompts, model and judge.
    progress : str, optional
        Title of a progress bar.
    """
    log, history, stopped = EditLog(), [], f"all {settings.iterations} iterations done"
    with EditedModel(examiner.chat_model.writers) as edited:
        for iteration in progress_bar(progress, range(settings.iterations + 1)):
            edited.apply(log)
            observed = observe(examiner, pool, settings, iteration, folder=folder, upstream=upstream)
            history.append({"iteration": iteration, **observed.metrics, **_summary(observed.sublayers)})
            if reason := _must_stop(history, settings.selection):
                stopped = reason
                break
            if iteration == settings.iterations:
                break
            edits = next_edits(edited, observed, settings.l_select)
            history[-1] |= {"edited": len(edits)}
            if not edits:
                stopped = f"iteration {iteration}: no sublayer could be edited ({_outcomes(observed.sublayers)})"
                break
            log = log.appended(edits)
            upstream = (_after(observed.stage, settings.l_select),)
    table = pandas.DataFrame(history).set_index("iteration")
    best = int(table[SELECTION_METRICS[settings.selection]].fillna(-1).to_numpy().argmax())
    return Alignment(log, table, best, stopped)


def observe(
    examiner: Examiner,
    pool: pandas.DataFrame,
    settings: AlignmentSettings,
    iteration: int,
    *,
    folder: Path,
    upstream: tuple[Stage, ...],
) -> Observation:
    """Let the model answer an iteration's sample and the validation prompts, and fit its vectors."""
    parameters = {"iteration": iteration, **asdict(settings)}
    for later in ("l_select", "iterations", "selection"):
        del parameters[later]
    sample = draw_sample(pool, settings.sample_per_dataset, settings.seed, iteration)
    prompts = pandas.concat([sample, pool[pool["split"] == "validation"]], ignore_index=True)

    def compute(place: Path) -> None:
        examined = examiner.examine(prompts, Capture())
        save_observation(place, examined, settings.solver, settings.penalty)

    return read_observation(_run_iteration(folder, compute, parameters, upstream))


def save_observation(place: Path, examined: Examination, solver: str, penalty: float) -> None:
    """Fit every sublayer's vectors on an examination's training rows and write all of it down."""
    vectors, scales = fit_all(examined, solver, penalty)
    final = vectors.pop(FINAL)
    table = score_sublayers(vectors, final)
    table.insert(0, "scale", pandas.Series(scales))
    for field in ("answer_outcome", "benign_outcome", "angle"):
        table[field] = [getattr(vectors[name], field) for name in table.index]
    rows = examined.rows
    rows[["id", "split", "response"]].to_csv(place / "responses.csv", index=False)
    rows[["id", "split", "guard_verdict", "verdict", "raw"]].to_csv(place / "verdicts.csv", index=False)
    table.to_csv(place / "sublayers.csv", index_label="sublayer")
    metrics = measure(rows[rows["split"] == "validation"])
    (place / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    everything = {**vectors, FINAL: final}
    save_file(
        {f"{name}/{kind}": getattr(value, kind) for name, value in everything.items() for kind in ("answer", "benign")},
        place / "vectors.safetensors",
    )


def read_observation(stage: Stage) -> Observation:
    """Read an observation back; what was computed and what was resumed are then the same numbers."""
    table = pandas.read_csv(stage / "sublayers.csv", index_col="sublayer")
    arrays = load_file(stage / "vectors.safetensors")
    vectors = {
        name: ControlVectors(
            answer=arrays[f"{name}/answer"],
            benign=arrays[f"{name}/benign"],
            answer_outcome=row.answer_outcome,
            benign_outcome=row.benign_outcome,
            answer_accuracy=row.accuracy_answer,
            benign_accuracy=row.accuracy_benign,
        )
        for name, row in table.iterrows()
    }
    return Observation(stage, table, vectors, json.loads((stage / "metrics.json").read_text()))


def fit_all(examined: Examination, solver: str, penalty: float) -> tuple[dict[str, ControlVectors], dict[str, float]]:
    """Fit the control vectors of all sublayers and of the final stream, and the scales of Eq. 7."""
    rows = examined.rows
    train = (rows["split"] == "train").to_numpy()
    held_out = (rows["split"] == "validation").to_numpy()
    benign, answer = benign_labels(rows).to_numpy(), answer_labels(rows).to_numpy()
    vectors, scales = {}, {}
    for name, features in examined.activations.outputs.items():
        vectors[name] = find_control_vectors(
            features[train],
            benign[train],
            answer[train],
            validation=(features[held_out], benign[held_out], answer[held_out]),
            penalty=penalty,
            solver=solver,
        )
        scales[name] = projection_scale(features[train], vectors[name].answer, vectors[name].benign)
    return vectors, scales


def next_edits(edited: EditedModel, observed: Observation, l_select: int) -> tuple[SublayerEdit, ...]:
    """Solve Eq. 9 for the selected sublayers, all from one observation; unusable ones are skipped."""
    table = observed.sublayers
    usable = table[_has_vectors(table) & table["scale"].gt(0)]
    return tuple(
        solve_edit(
            edited.weight(name),
            edited.bias(name),
            sublayer=name,
            answer=observed.vectors[name].answer,
            benign=observed.vectors[name].benign,
            scale=float(table.at[name, "scale"]),
        )
        for name in select_sublayers(usable, l_select)
    )


def _run_iteration(folder: Path, compute: Callable, parameters: dict, upstream: tuple[Stage, ...]) -> Stage:
    key = stage_key(parameters, upstream, STAGE_VERSION)
    return run_stage(folder / key[:16], compute, parameters=parameters, upstream=upstream, version=STAGE_VERSION)


def _after(stage: Stage, l_select: int) -> Stage:
    # The next model follows from this observation and the number of sublayers edited.
    return Stage(stage.folder, f"{stage.key}:{l_select}", stage.hit)


def _summary(table: pandas.DataFrame) -> dict[str, float]:
    means = table[["angle", "scale", "accuracy_answer", "accuracy_benign"]].mean()
    return {f"mean_{name}": float(value) for name, value in means.items()} | {
        "skipped": int((~_has_vectors(table)).sum())
    }


def _has_vectors(table: pandas.DataFrame) -> pandas.Series:
    # A liblinear fit that stopped early still has a direction; its outcome is on record.
    usable = ["fitted", "not converged"]
    return table["answer_outcome"].isin(usable) & table["benign_outcome"].isin(usable)


def _outcomes(table: pandas.DataFrame) -> str:
    return ", ".join(sorted(set(table["answer_outcome"]) | set(table["benign_outcome"])))


def _must_stop(history: list[dict], selection: str) -> str:
    metric = SELECTION_METRICS[selection]
    now, start = history[-1][metric], history[0][metric]
    if now < LOWEST_F1 and now < start / 2:
        return f"iteration {len(history) - 1}: validation {metric} fell to {now:.3f}, under half of the original's"
    return ""
