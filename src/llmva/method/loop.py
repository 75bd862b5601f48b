"""The alignment loop: observe the model, fit its vectors, edit it, and do it again (paper 4.3).

One iteration is one cached observation. Its folder is named by the digest of all that led to it,
so a killed run resumes where it was, runs that begin alike share their beginning, and every
iteration's model is a prefix of the edit log.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import pandas

from llmva.core.progress import progress_bar
from llmva.core.store import Stage, run_stage, stage_key
from llmva.core.vocabulary import LOWEST_F1, MAX_BROKEN, MAX_DIVERGENCE
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog, SublayerEdit
from llmva.judging.examiner import Examination, Examiner
from llmva.method.edit import solve_edit
from llmva.method.iteration import Observation, ObservationSettings, Observer, read_observation
from llmva.method.layer_selection import select_sublayers
from llmva.models.activations import Capture

LOOP_VERSION = 3
SELECTION_METRICS = {"strict": "strict_f1", "guarded": "strict_f1", "paper": "f1"}


@dataclass(frozen=True)
class LoopSettings:
    """What a loop does with its observations, and what these depend on.

    Attributes
    ----------
    l_select, iterations : int
        Sublayers that are edited in each iteration, and T.
    selection : str
        What picks the iteration on validation; see `choose_iteration`.
    observation : ObservationSettings
        See there.
    """

    l_select: int
    iterations: int
    selection: str
    observation: ObservationSettings

    def changed(self, **changes) -> Self:
        """Return the same settings with some fields changed, those of the observation too."""
        of_loop = {name: changes.pop(name) for name in ("l_select", "iterations", "selection") if name in changes}
        return replace(self, observation=replace(self.observation, **changes), **of_loop)


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
    settings: LoopSettings,
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
    pool, neutral : DataFrame
        See `Observer`; validation prompts choose the iteration.
    folder : Path
        Where iterations are kept.
    upstream : tuple of Stage
        What the first observation depends on: prompts, model and judge.
    originals : dict of Capture to Examination, optional
        What the original said, for runs that only make something else of it: the first one fills it. All of them
        must have the same examiner, prompts, size of the sample and seed.
    progress : str, optional
        Title of a progress bar.
    """
    log, history, stopped = EditLog(), [], f"all {settings.iterations} iterations done"
    with EditedModel(examiner.chat_model.writers, rounding=settings.observation.rounding) as edited:
        observer = Observer(examiner, edited, pool, settings.observation, neutral)
        for iteration in progress_bar(progress, range(settings.iterations + 1)):
            edited.apply(log)
            observed = observe(observer, iteration, folder, upstream, originals=None if iteration else originals)
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
            # The next model follows from this observation and the number of sublayers edited.
            upstream = (replace(observed.stage, key=f"{observed.stage.key}:{settings.l_select}"),)
    table = pandas.DataFrame(history).set_index("iteration")
    return Alignment(log, table, choose_iteration(table, settings.selection), stopped)


def observe(
    observer: Observer,
    iteration: int,
    folder: Path,
    upstream: tuple[Stage, ...],
    *,
    originals: dict[Capture, Examination] | None = None,
) -> Observation:
    """Return an iteration's observation, from its stage where it is there already; see `align`."""
    parameters = {"iteration": iteration, **asdict(observer.settings)}

    def compute(stage_folder: Path) -> None:
        known, capture = {} if originals is None else originals, observer.settings.capture
        if capture not in known:
            known[capture] = observer.examine(iteration)
        observer.save(stage_folder, known[capture], iteration)

    key = stage_key(parameters, upstream, LOOP_VERSION)
    options = {"parameters": parameters, "upstream": upstream, "version": LOOP_VERSION}
    return read_observation(run_stage(folder / key[:16], compute, **options))


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
