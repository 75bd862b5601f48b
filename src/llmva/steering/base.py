"""The protocol of a steering method, what it may learn from, and tuning with a fixed number of trials."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy
import pandas

from llmva.judging.examiner import answer_labels, benign_labels
from llmva.models.activations import FINAL, Activations, Capture
from llmva.models.chat_model import ChatModel
from llmva.models.reading import read_activations

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
