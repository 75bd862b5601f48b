"""The model as it is."""

from contextlib import AbstractContextManager, nullcontext

import pandas

from llmva.models import ChatModel


class Original:
    """No steering: the row that everything is compared with."""

    name = "Original"

    def fit(self, chat_model: ChatModel, training: pandas.DataFrame, *, batch_size: int) -> None:
        """Learn nothing."""

    def search_space(self, trials: int) -> list[dict]:
        """Return the one empty setting."""
        return [{}]

    def applied(self, chat_model: ChatModel, setting: dict) -> AbstractContextManager:
        """Leave the model alone."""
        return nullcontext()
