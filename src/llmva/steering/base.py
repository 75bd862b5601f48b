"""The protocol of a steering method, what it may learn from, and tuning with a fixed number of trials."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy
import pandas

from llmva.core.progress import progress_bar
from llmva.engines.hugging_face import read_activations
from llmva.judging.examiner import Examiner, answer_labels, benign_labels
from llmva.measures.metrics import measure
from llmva.models.activations import FINAL, Activations, Capture
from llmva.models.chat_model import ChatModel

UNSTEERED = {"strength": 0.0}


@dataclass(frozen=True)
class TrainingData:
    """What every method learns from, read once and shared.

    Attributes
    ----------
    chat_model : ChatModel
        The unedited model.
    rows : DataFrame
        Training prompts: id, dataset, label, prompt, and the model's own response and verdict.
    neutral : tuple of str
        Prompts that have nothing to do with safety and whose replies should stay as they are.
    batch_size, seed : int
        Prompts a batch; the study's seed.
    """

    chat_model: ChatModel
    rows: pandas.DataFrame
    neutral: tuple[str, ...]
    batch_size: int
    seed: int

    @property
    def answered(self) -> numpy.ndarray:
        """+1 for answered prompts, -1 for refused ones, 0 for replies that are neither, (n,)."""
        return answer_labels(self.rows).to_numpy()

    @property
    def benign(self) -> numpy.ndarray:
        """+1 for benign prompts, -1 for toxic ones, (n,)."""
        return benign_labels(self.rows).to_numpy()

    @cached_property
    def residuals(self) -> dict[int, numpy.ndarray]:
        """The residual stream at each prompt's last token, (n, d) by site: block inputs, then the last output."""
        return residuals_of(self._read(self.rows["prompt"].tolist()))

    @cached_property
    def neutral_residuals(self) -> dict[int, numpy.ndarray]:
        """The same of the neutral prompts."""
        return residuals_of(self._read(list(self.neutral)))

    def _read(self, prompts: list[str]) -> Activations:
        capture = Capture(outputs=False, blocks=True)
        return read_activations(self.chat_model, prompts, capture=capture, batch_size=self.batch_size)


def residuals_of(activations: Activations) -> dict[int, numpy.ndarray]:
    """Return captured blocks and final stream by site: 0 to L-1 are block inputs, L the last block's output."""
    return {**activations.blocks, len(activations.blocks): activations.outputs[FINAL]}


class SteeringMethod(Protocol):
    """What makes a model answer differently.

    A method is fitted once on training rows, offers settings to try, and is applied for the
    length of a `with` block, after which the model is as it was.

    Attributes
    ----------
    name : str
        As in the tables.
    version : int
        Counts the changes that give other results; what was measured before one is measured again.
    finetunes, hooks : bool
        Whether it trains weights by gradient, and whether it must run beside the model (Table 1).
    """

    name: str
    version: int
    finetunes: bool
    hooks: bool

    def fit(self, training: TrainingData) -> None:
        """Learn from training prompts and the original model's verdicts on them."""

    def search_space(self, trials: int) -> list[dict]:
        """Return at most `trials` settings, the unsteered model first.

        A setting is flat and goes into JSON. Settings with a key `variant` compete, and the best of each
        variant is also reported on its own.
        """

    def applied(self, chat_model: ChatModel, setting: dict) -> AbstractContextManager:
        """Steer the model inside a `with` block; leaving it restores the model."""


@dataclass(frozen=True)
class Tuned:
    """The outcome of tuning.

    Attributes
    ----------
    setting : dict
        The best setting; the earliest on a tie.
    variants : dict of str to dict
        The best setting of each variant, where the method has several.
    trials : DataFrame
        One row per trial: its setting and its validation metrics.
    """

    setting: dict
    variants: dict[str, dict]
    trials: pandas.DataFrame


def tune(
    method: SteeringMethod,
    examiner: Examiner,
    validation: pandas.DataFrame,
    *,
    trials: int,
    metric: str = "strict_f1",
    progress: str | None = None,
) -> Tuned:
    """Try a method's settings on validation prompts and keep the one with the highest metric."""
    settings = method.search_space(trials)
    rows = []
    for setting in progress_bar(progress, settings):
        with method.applied(examiner.chat_model, setting):
            examined = examiner.examine(validation)
        rows.append({**setting, **measure(examined.rows)})
    table = pandas.DataFrame(rows)
    scores = table[metric].fillna(-1).to_numpy()
    variants = dict.fromkeys(setting["variant"] for setting in settings if "variant" in setting)
    best_of = {variant: _best(settings, scores, variant) for variant in variants}
    return Tuned(settings[int(scores.argmax())], best_of, table)


def _best(settings: list[dict], scores: numpy.ndarray, variant: str) -> dict:
    mine = [index for index, setting in enumerate(settings) if setting.get("variant") == variant]
    return settings[max(mine, key=lambda index: (scores[index], -index))]
