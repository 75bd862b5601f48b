"""One look at a model in the loop: its replies, its control vectors and what an edit would be made of."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy
import pandas
import torch
from safetensors.numpy import load_file, save_file

from llmva.core.parallel import map_in_threads
from llmva.core.paths import write_texts
from llmva.core.provenance import random_generator
from llmva.core.store import Stage
from llmva.edits.edited_model import EditedModel
from llmva.judging.examiner import Examination, Examiner, answer_labels, benign_labels
from llmva.measures.divergence import Divergence
from llmva.measures.metrics import measure
from llmva.method.control_vectors import ControlVectors, distorted, find_control_vectors, rounded
from llmva.method.edit import edit_target, projection_scale
from llmva.method.layer_selection import score_sublayers
from llmva.method.ridge_edit import NEUTRAL_TOKENS, first_of_each_task, ridge_input_vector
from llmva.models.activations import FINAL, Capture
from llmva.models.reading import read_activations
from llmva.prompts.pools import draw_sample

# Neutral prompts of each task on which the divergence is measured.
DIVERGENCE_PROMPTS = 20


@dataclass(frozen=True)
class ObservationSettings:
    """What an observation depends on besides the model, its judge and the prompts; see `StudyParams`.

    Attributes
    ----------
    sample_per_dataset, seed : int
        Training prompts drawn of each set, and the seed of the draws.
    solver, penalty
        As in `llmva.method.svm.fit_svms`.
    feature_scale : str
        `raw`, `rms` or `length`: what each sublayer's features are divided by before the SVMs (`feature_size`).
    update : str
        `exact` (Eq. 9), or `ridge` with `neutral_weight` lambda and `damping` mu (see `llmva.method.ridge_edit`).
    neutral_left_out : tuple of str
        Tasks whose neutral prompts a ridge edit does not see.
    basis : str
        Where sublayers' outputs are read; see `Capture`.
    rounding : str
        `none`, or `bfloat16`: vectors and, after each iteration, weights are rounded, as in the released code.
    distortion : (int, int)
        Degrees by which both vectors are turned to a random orthogonal direction, and the number of the draw.
    shuffled : bool
        Whether labels are shuffled among the training rows, as a control.
    labels : {"verdict", "guard_verdict"}
        Whether broken replies teach v_a nothing, or what the guard makes of them, as in the released code.
    """

    sample_per_dataset: int
    solver: str
    penalty: float
    seed: int
    feature_scale: str = "raw"
    update: str = "exact"
    neutral_weight: float = 1.0
    damping: float = 1e-3
    neutral_left_out: tuple[str, ...] = ()
    basis: str = "module"
    rounding: str = "none"
    distortion: tuple[int, int] = (0, 0)
    shuffled: bool = False
    labels: str = "verdict"

    @property
    def capture(self) -> Capture:
        """What is recorded of the prompts: a ridge edit is fitted on what the modules read as well."""
        return Capture(inputs=self.update == "ridge", basis=self.basis)


@dataclass(frozen=True)
class Observation:
    """A model at one iteration: its vectors, scores and validation metrics, read from its stage.

    Attributes
    ----------
    sublayers : DataFrame
        Indexed by sublayer: outcomes, accuracies, angle, scale s, and the terms of the score.
    vectors : dict of str to ControlVectors
        By sublayer.
    input_vectors : dict of str to ndarray
        By sublayer, of ridge edits; empty for exact ones, which follow from the vectors.
    metrics : dict
        On validation, as `measure` gives them, and `divergence` from the original in nats per token.
    """

    stage: Stage
    sublayers: pandas.DataFrame
    vectors: dict[str, ControlVectors]
    metrics: dict[str, float]
    input_vectors: dict[str, numpy.ndarray]


@dataclass(frozen=True, eq=False)
class Observer:
    """What all iterations of a loop share: the model with its edits, its judge, the prompts and the settings.

    Attributes
    ----------
    edited : EditedModel
        The examiner's model, edited in place.
    pool : DataFrame
        The study's prompts; training prompts teach, validation prompts measure.
    neutral : DataFrame, optional
        Prompts that have nothing to do with safety and the original's replies (columns task, prompt, reply):
        the divergence is measured on them, and ridge edits leave them alone.
    """

    examiner: Examiner
    edited: EditedModel
    pool: pandas.DataFrame
    settings: ObservationSettings
    neutral: pandas.DataFrame | None = None

    def examine(self, iteration: int) -> Examination:
        """Let the model as it is now answer an iteration's fresh sample and the validation prompts."""
        sample = draw_sample(self.pool, self.settings.sample_per_dataset, self.settings.seed, iteration)
        prompts = pandas.concat([sample, self.pool[self.pool["split"] == "validation"]], ignore_index=True)
        return self.examiner.examine(prompts, self.settings.capture)

    @cached_property
    def divergence(self) -> Divergence | None:
        """The divergence from the reference model on some neutral prompts of each task, if both are there."""
        check = self.examiner.degeneracy
        if self.neutral is None or self.neutral.empty or check is None:
            return None
        rows = self.neutral.groupby("task", sort=False).head(DIVERGENCE_PROMPTS)
        replies = rows["prompt"].tolist(), rows["reply"].tolist()
        return Divergence(check.reference, *replies, batch_size=self.examiner.batch_size)

    def save(self, folder: Path, examined: Examination, iteration: int) -> None:
        """Write an observation, with the divergence and, of a ridge edit, the input vectors; see `read_observation`."""
        vectors, scales = fit_all(examined, self.settings, iteration)
        metrics, inputs = {}, {}
        if self.divergence is not None:
            metrics["divergence"] = self.divergence.measure(self.examiner.chat_model)
        if self.settings.update == "ridge":
            inputs = self._ridge_inputs(examined, vectors, scales)
        _write_observation(folder, examined, vectors, scales, metrics=metrics, inputs=inputs)

    def _ridge_inputs(
        self, examined: Examination, vectors: dict[str, ControlVectors], scales: dict[str, float]
    ) -> dict[str, numpy.ndarray]:
        train, inputs = (examined.rows["split"] == "train").to_numpy(), examined.activations.inputs
        quiet, device = self.neutral_inputs(), self.solver_device

        def solve(name: str) -> numpy.ndarray:
            pair = {"answer": vectors[name].answer, "benign": vectors[name].benign}
            target, _ = edit_target(self.edited.weight(name), None, **pair, scale=scales[name])
            return ridge_input_vector(
                target,
                inputs[name][train],
                quiet.get(name),
                neutral_weight=self.settings.neutral_weight,
                damping=self.settings.damping,
                device=device,
            ).astype(numpy.float32)

        fitted = [name for name in inputs if vectors[name].answer.any() and vectors[name].benign.any()]
        usable = [name for name in fitted if numpy.isfinite(scales[name])]
        # A GPU solves one after the other: each needs a gigabyte of its memory.
        return map_in_threads(solve, usable, 1 if device else torch.get_num_threads())

    @property
    def solver_device(self) -> torch.device | None:
        """Where ridge edits are solved: on the model's GPU, if it has one."""
        device = self.examiner.chat_model.device
        return device if device.type == "cuda" else None

    def neutral_inputs(self) -> dict[str, numpy.ndarray]:
        """Read what every sublayer's module takes in, by sublayer, at all tokens of neutral text; {} without any."""
        rows = self._neutral_exchanges
        if rows.empty:
            return {}
        return read_activations(
            self.examiner.chat_model,
            rows["prompt"].tolist(),
            rows["reply"].tolist(),
            capture=Capture(outputs=False, inputs=True, final=False, positions="all"),
            batch_size=self.examiner.batch_size,
        ).inputs

    @cached_property
    def _neutral_exchanges(self) -> pandas.DataFrame:
        if self.neutral is None:
            return pandas.DataFrame()
        rows = self.neutral[~self.neutral["task"].isin(self.settings.neutral_left_out)]
        return first_of_each_task(rows, self.examiner.chat_model.tokenizer, NEUTRAL_TOKENS)


def save_observation(folder: Path, examined: Examination, settings: ObservationSettings) -> None:
    """Fit every sublayer's vectors on an examination's training rows and write all of it down."""
    _write_observation(folder, examined, *fit_all(examined, settings))


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
    inputs = {key.removesuffix("/input"): value for key, value in arrays.items() if key.endswith("/input")}
    return Observation(stage, table, vectors, json.loads((stage / "metrics.json").read_text()), inputs)


def fit_all(
    examined: Examination, settings: ObservationSettings, iteration: int = 0
) -> tuple[dict[str, ControlVectors], dict[str, float]]:
    """Fit the control vectors of all sublayers and of the final stream, and the scales of Eq. 7."""
    rows = examined.rows
    train = (rows["split"] == "train").to_numpy()
    held_out = (rows["split"] == "validation").to_numpy()
    benign, answer = benign_labels(rows).to_numpy(), answer_labels(rows, settings.labels).to_numpy()
    labels = [benign[train], answer[train]]
    if settings.shuffled:
        draws = random_generator(settings.seed, "shuffled labels", iteration)
        labels = [draws.permutation(column) for column in labels]

    def fit(name: str) -> tuple[ControlVectors, float]:
        features = examined.activations.outputs[name]
        size = feature_size(features[train], settings.feature_scale)
        vectors = find_control_vectors(
            features[train] / size,
            *labels,
            validation=(features[held_out] / size, benign[held_out], answer[held_out]),
            penalty=settings.penalty,
            solver=settings.solver,
        )
        if settings.rounding != "none":
            vectors = rounded(vectors, settings.rounding)
        degrees, draw = settings.distortion
        if degrees:
            vectors = distorted(vectors, degrees, random_generator(settings.seed, "distortion", draw, iteration, name))
        return vectors, projection_scale(features[train], vectors.answer, vectors.benign)

    fitted = map_in_threads(fit, examined.activations.outputs, torch.get_num_threads())
    return {name: pair[0] for name, pair in fitted.items()}, {name: pair[1] for name, pair in fitted.items()}


def feature_size(features: numpy.ndarray, kind: str) -> float:
    """Return what features (n, d) are divided by before the SVMs, so that C means the same at every sublayer.

    Raw outputs differ in size by two orders of magnitude between sublayers, and C counts by its square.

    Parameters
    ----------
    kind : {"raw", "rms", "length"}
        1; the root mean square of the entries; or that of the rows' lengths, larger by the root of d: C then
        also means the same at every width.
    """
    squares = numpy.mean(features.astype(numpy.float64) ** 2)
    size = {"raw": 1.0, "rms": squares**0.5, "length": (squares * features.shape[1]) ** 0.5}[kind]
    return float(size) if numpy.isfinite(size) and size > 0 else 1.0


def _write_observation(
    folder: Path,
    examined: Examination,
    vectors: dict[str, ControlVectors],
    scales: dict[str, float],
    *,
    metrics: dict[str, float] | None = None,
    inputs: dict[str, numpy.ndarray] | None = None,
) -> None:
    rows, sublayers = examined.rows, {name: pair for name, pair in vectors.items() if name != FINAL}
    write_texts(folder / "responses.csv", rows[["id", "split", "response"]])
    write_texts(folder / "verdicts.csv", rows[["id", "split", "guard_verdict", "verdict", "raw"]])
    table = score_sublayers(sublayers, vectors[FINAL])
    table.insert(0, "scale", pandas.Series(scales))
    for name in ("answer_outcome", "benign_outcome", "angle"):
        table[name] = [getattr(sublayers[sublayer], name) for sublayer in table.index]
    table.to_csv(folder / "sublayers.csv", index_label="sublayer")
    metrics = measure(rows[rows["split"] == "validation"]) | (metrics or {})
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    arrays = {f"{name}/{kind}": getattr(pair, kind) for name, pair in vectors.items() for kind in ("answer", "benign")}
    save_file(
        arrays | {f"{name}/input": vector for name, vector in (inputs or {}).items()}, folder / "vectors.safetensors"
    )
