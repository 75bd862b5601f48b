"""A method on top of a weight edit: fitted to the edited model and to what that one answers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pandas

from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog
from llmva.models.chat_model import ChatModel
from llmva.steering.base import SteeringMethod, TrainingData


class OnEditedModel(SteeringMethod):
    """Another method, with edited weights below it; the first of its settings is the edited model alone.

    Parameters
    ----------
    name : str
        As in the tables.
    inner : SteeringMethod
    log : EditLog
        Up to the iteration that is kept.
    examine : callable
        From rows with prompts to the same rows with the response and verdict of the model as it is then.
    """

    hooks = True
    reads = "what the method below it reads, in the edited model"
    acts = "weights, and what the method below it changes"

    def __init__(
        self, name: str, inner: SteeringMethod, log: EditLog, examine: Callable[[pandas.DataFrame], pandas.DataFrame]
    ) -> None:
        self.name, self.version = name, inner.version
        self._inner, self._log, self._examine = inner, log, examine

    @property
    def outcome(self) -> str:
        """As of the other method."""
        return self._inner.outcome

    def fit(self, training: TrainingData) -> None:
        """Let the edited model answer the training prompts, and fit the other method to that."""
        with self._edited(training.chat_model):
            # What the unedited model said is put aside.
            prompts = training.rows.drop(columns=["response", "verdict"])
            self._inner.fit(replace(training, rows=self._examine(prompts)))

    def search_space(self, trials: int) -> list[dict]:
        """Return the other method's settings."""
        return self._inner.search_space(trials)

    @contextmanager
    def applied(self, chat_model: ChatModel, setting: dict) -> Iterator[None]:
        """Edit the weights and steer; leaving undoes both."""
        with self._edited(chat_model), self._inner.applied(chat_model, setting):
            yield

    @contextmanager
    def _edited(self, chat_model: ChatModel) -> Iterator[None]:
        with EditedModel(chat_model.writers) as edited:
            edited.apply(self._log)
            yield
