"""The alignment loop: observe the model, fit its vectors, edit it, and do it again (paper 4.3).

One iteration is one cached observation. Its place is named by the digest of all that led to it,
so a killed run resumes where it was, runs that begin alike share their beginning, and every
iteration's model is a prefix of the edit log.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas

from llmva.core.progress import progress_bar
from llmva.core.store import Stage, run_stage, stage_key
from llmva.core.vocabulary import LOWEST_F1, MAX_BROKEN, MAX_DIVERGENCE
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog, SublayerEdit
from llmva.judging.examiner import Examination, Examiner
from llmva.measures.divergence import Divergence
from llmva.method.edit import solve_edit
from llmva.method.iteration import AlignmentSettings, Observation, read_observation, save_observation
from llmva.method.layer_selection import select_sublayers
from llmva.models.activations import Capture
from llmva.prompts.pools import draw_sample

__all__ = ["Alignment", "AlignmentSettings", "align", "choose_iteration", "next_edits", "observe"]

STAGE_VERSION = 2
SELECTION_METRICS = {"strict": "strict_f1", "guarded": "strict_f1", "paper": "f1"}
# Of each task.
DIVERGENCE_PROMPTS = 20


@dataclass(frozen=True)
class Alignment:
    """A finished loop.

    Attributes
    ----------
    log : EditLog
        All iterations' edits; the model of iteration t is `log.at_iteration(t)`.
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
        return self.log.at_iteration(self.best_iteration)


def align(
    examiner: Examiner,
    pool: pandas.DataFrame,
    settings: AlignmentSettings,
    *,
    folder: Path,
    upstream: tuple[Stage, ...],
    neutral: pandas.DataFrame | None = None,
    originals: dict[Capture, Examination] | None = None,
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
    neutral : DataFrame, optional
        Prompts that have nothing to do with safety and the original's replies (columns task, prompt, reply):
        the divergence is measured on them, and ridge edits leave them alone.
    originals : dict of Capture to Examination, optional
        What the original said, for runs that only make something else of it: the first one fills it. All of them
        must have the same examiner, prompts, size of the sample and seed.
    progress : str, optional
        Title of a progress bar.
    """
    divergence = divergence_of(examiner, neutral)
    log, history, stopped = EditLog(), [], f"all {settings.iterations} iterations done"
    with edited_model(examiner, settings) as edited:
        for iteration in progress_bar(progress, range(settings.iterations + 1)):
            edited.apply(log)
            observed = observe(
                examiner,
                pool,
                settings,
                iteration,
                folder=folder,
                upstream=upstream,
                edited=edited,
                neutral=neutral,
                divergence=divergence,
                originals=None if iteration else originals,
            )
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
    return Alignment(log, table, choose_iteration(table, settings.selection), stopped)


def edited_model(examiner: Examiner, settings: AlignmentSettings) -> EditedModel:
    """Return the examiner's model, to be edited in place with the settings' rounding."""
    return EditedModel(examiner.chat_model.writers, rounding=settings.rounding)


def divergence_of(examiner: Examiner, neutral: pandas.DataFrame | None) -> Divergence | None:
    """Return the divergence from the reference model on some neutral prompts of each task, if both are there."""
    if neutral is None or neutral.empty or examiner.degeneracy is None or examiner.degeneracy.reference is None:
        return None
    rows = neutral.groupby("task", sort=False).head(DIVERGENCE_PROMPTS)
    reference, batch_size = examiner.degeneracy.reference, examiner.batch_size
    return Divergence(reference, rows["prompt"].tolist(), rows["reply"].tolist(), batch_size=batch_size)


def choose_iteration(history: pandas.DataFrame, selection: str) -> int:
    """Return the earliest iteration with the highest metric of a selection, the original model included.

    The guarded selection leaves out iterations with more than 2 % more broken replies than the original, or
    with a divergence from it of more than 0.05 nats per token.
    """
    scores = history[SELECTION_METRICS[selection]].fillna(-1)
    if selection == "guarded":
        broken = history["degenerate"] > history["degenerate"].iloc[0] + MAX_BROKEN
        moved = history["divergence"] > MAX_DIVERGENCE if "divergence" in history else False
        scores = scores.mask(broken | moved, -1)
    return int(scores.to_numpy().argmax())


def observe(
    examiner: Examiner,
    pool: pandas.DataFrame,
    settings: AlignmentSettings,
    iteration: int,
    *,
    folder: Path,
    upstream: tuple[Stage, ...],
    edited: EditedModel | None = None,
    neutral: pandas.DataFrame | None = None,
    divergence: Divergence | None = None,
    originals: dict[Capture, Examination] | None = None,
) -> Observation:
    """Let the model answer an iteration's sample and the validation prompts, and fit its vectors."""
    parameters = {"iteration": iteration, **asdict(settings)}
    for later in ("l_select", "iterations", "selection"):
        del parameters[later]
    if settings.labels == "verdict":
        # This choice came later: what was observed before it is still found.
        del parameters["labels"]
    sample = draw_sample(pool, settings.sample_per_dataset, settings.seed, iteration)
    prompts = pandas.concat([sample, pool[pool["split"] == "validation"]], ignore_index=True)

    def compute(place: Path) -> None:
        capture = Capture(inputs=settings.update == "ridge", basis=settings.basis)
        known = {} if originals is None else originals
        if capture not in known:
            known[capture] = examiner.examine(prompts, capture)
        save_observation(
            place,
            known[capture],
            settings,
            iteration=iteration,
            examiner=examiner,
            edited=edited,
            neutral=neutral,
            divergence=divergence,
        )

    return read_observation(_run_iteration(folder, compute, parameters, upstream))


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
            input_vector=observed.input_vectors.get(name),
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
