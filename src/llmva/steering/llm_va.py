"""LLM-VA as a method: the loop's edit log, one setting per iteration."""

from collections.abc import Iterator
from contextlib import contextmanager

import pandas

from llmva.edits import EditedModel, EditLog
from llmva.models import ChatModel


class LlmVa:
    """The weights of one iteration of an alignment (see `llmva.alignment`).

    Parameters
    ----------
    log : EditLog
        Of a finished loop; fitting is the loop's work.
    """

    name = "LLM-VA"

    def __init__(self, log: EditLog) -> None:
        self.log = log

    def fit(self, chat_model: ChatModel, training: pandas.DataFrame, *, batch_size: int) -> None:
        """Learn nothing more: the log holds all there is."""

    def search_space(self, trials: int) -> list[dict]:
        """Return the iterations, 0 being the original model."""
        return [{"iteration": iteration} for iteration in range(min(trials, len(self.log.iterations) + 1))]

    @contextmanager
    def applied(self, chat_model: ChatModel, setting: dict) -> Iterator[None]:
        """Edit the weights in place; leaving restores them bit for bit."""
        with EditedModel(chat_model.writers) as edited:
            edited.apply(self.log.up_to(setting["iteration"]))
            yield
