"""The protocol of a steering method, and what it may learn from."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy
import pandas

from llmva.core.vocabulary import RIGHT_VERDICTS
from llmva.judging.examiner import answer_labels, benign_labels
from llmva.models.activations import FINAL, Activations, Capture
from llmva.models.chat_model import ChatModel
from llmva.models.reading import read_activations

UNSTEERED = {"strength": 0.0}
NOT_FITTED, FITTED, NOTHING_TO_FIT = "not fitted", "fitted", "nothing to fit"


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

    @cached_property
    def answered(self) -> numpy.ndarray:
        """+1 for answered prompts, -1 for refused ones, 0 for replies that are neither, (n,)."""
        return answer_labels(self.rows).to_numpy()

    @cached_property
    def benign(self) -> numpy.ndarray:
        """+1 for benign prompts, -1 for toxic ones, (n,)."""
        return benign_labels(self.rows).to_numpy()

    @cached_property
    def right(self) -> numpy.ndarray:
        """Which prompts were handled rightly, as the metrics count it, bool (n,)."""
        said = zip(self.rows["label"], self.rows["verdict"], strict=True)
        return numpy.array([verdict in RIGHT_VERDICTS[label] for label, verdict in said], dtype=bool)

    @cached_property
    def residuals(self) -> dict[int, numpy.ndarray]:
        """The residual stream at each training prompt's last token; see `read`."""
        return self.read(self.rows["prompt"].tolist())

    @cached_property
    def neutral_residuals(self) -> dict[int, numpy.ndarray]:
        """The residual stream at each neutral prompt's last token; see `read`."""
        return self.read(self.neutral)

    @property
    def is_finite(self) -> bool:
        """Whether no residual of a training prompt has overflowed."""
        return all(numpy.isfinite(rows).all() for rows in self.residuals.values())

    def read(
        self, prompts: Sequence[str], replies: Sequence[str] | None = None, positions: str = "last"
    ) -> dict[int, numpy.ndarray]:
        """Read the unedited model's residual stream in prompts, or in replies that follow them.

        Parameters
        ----------
        positions : str
            `last`, `all` or `mean` (see `Capture`) of each prompt's tokens; with replies, of each reply's.

        Returns
        -------
        dict of int to (rows, d) float32 array
            By site: block inputs, then the last block's output.
        """
        capture = Capture(outputs=False, blocks=True, positions=positions)
        options = {"batch_size": self.batch_size, "tokens": "all" if replies is None else "reply"}
        return residuals_of(read_activations(self.chat_model, prompts, replies, capture=capture, **options))


def one_class(labels: numpy.ndarray) -> bool:
    """Return whether labels, of which 0 are left out, do not hold both +1 and -1."""
    return not {1, -1} <= set(labels.tolist())


def residuals_of(activations: Activations) -> dict[int, numpy.ndarray]:
    """Return captured blocks and final stream by site: 0 to L-1 are block inputs, L the last block's output."""
    return {**activations.blocks, len(activations.blocks): activations.outputs[FINAL]}


class SteeringMethod(Protocol):
    """What makes a model answer differently.

    A method is fitted once on training rows, offers settings to try, and is applied for the length of a `with`
    block, after which the model is as it was. A subclass that says nothing else learns nothing.

    Attributes
    ----------
    name : str
        As in the tables.
    version : int
        Counts the changes that give other results; what was measured before one is measured again.
    finetunes, hooks : bool
        Whether it trains weights by gradient, and whether it must run beside the model (Table 1).
    reads, acts : str
        What it learns from and where it changes the model, in a few words for a table.
    outcome : str
        `not fitted`, `fitted`, or why there was nothing to learn from, as `one class`; manifests record it. What
        cannot be fitted raises nothing: its search space is the unsteered model.
    """

    name: str
    version: int
    reads: str
    acts: str
    finetunes: bool = False
    hooks: bool = False
    outcome: str = NOTHING_TO_FIT

    def fit(self, training: TrainingData) -> None:
        """Learn from training prompts and the original model's verdicts on them."""

    def search_space(self, trials: int) -> list[dict]:
        """Return at most `trials` settings, the unsteered model first.

        A setting is flat and goes into JSON. Settings with a key `variant` compete, and the best of each
        variant is also reported by itself.
        """

    def applied(self, chat_model: ChatModel, setting: dict) -> AbstractContextManager:
        """Steer the model inside a `with` block; leaving it restores the model."""
