"""The model as it is."""

from contextlib import AbstractContextManager, nullcontext

from llmva.models.chat_model import ChatModel
from llmva.steering.base import SteeringMethod


class Original(SteeringMethod):
    """No steering: the row that everything is compared with."""

    name = "Original"
    version = 1
    reads = "nothing"
    acts = "nowhere"

    def search_space(self, trials: int) -> list[dict]:
        """Return the one empty setting."""
        return [{}]

    def applied(self, chat_model: ChatModel, setting: dict) -> AbstractContextManager:
        """Leave the model alone."""
        return nullcontext()
