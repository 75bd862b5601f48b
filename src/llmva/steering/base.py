"""The protocol of a steering method, and tuning on validation with a fixed number of trials."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import pandas

from llmva.examination import Examiner
from llmva.metrics import measure
from llmva.models import ChatModel
from llmva.progress import progress_bar


class SteeringMethod(Protocol):
    """What makes a model answer differently.

    A method is fitted once on training rows, offers settings to try, and is applied for the
    length of a `with` block, after which the model is as it was.
    """

    name: str

    def fit(self, chat_model: ChatModel, training: pandas.DataFrame, *, batch_size: int) -> None:
        """Learn from training prompts and the original model's verdicts on them."""

    def search_space(self, trials: int) -> list[dict]:
        """Return at most `trials` settings, the unsteered model being one of them."""

    def applied(self, chat_model: ChatModel, setting: dict) -> AbstractContextManager:
        """Steer the model inside a `with` block; leaving it restores the model."""


@dataclass(frozen=True)
class Tuned:
    """The outcome of tuning.

    Attributes
    ----------
    setting : dict
        The best setting; the earliest on a tie.
    trials : DataFrame
        One row per trial: its setting and its validation metrics.
    """

    setting: dict
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
    return Tuned(settings[int(table[metric].to_numpy().argmax())], table)
