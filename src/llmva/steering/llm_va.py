"""LLM-VA as a method: a loop's edit log, one setting per iteration."""

from collections.abc import Iterator
from contextlib import contextmanager

from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog
from llmva.models.chat_model import ChatModel
from llmva.steering.base import SteeringMethod


class LlmVa(SteeringMethod):
    """The weights of one iteration of an alignment (see `llmva.method.loop`).

    Parameters
    ----------
    log : EditLog
        Of a finished loop; fitting is the loop's work.
    name : str
        As in the tables: the paper's loop and its variants differ in their logs alone.
    rounding : str
        As the loop was run; see `EditedModel`.
    """

    version = 1
    reads = "sublayer outputs at the last prompt token"
    acts = "weights of the chosen sublayers"

    def __init__(self, log: EditLog, name: str = "LLM-VA", rounding: str = "none") -> None:
        self.log = log
        self.name = name
        self.rounding = rounding

    def search_space(self, trials: int) -> list[dict]:
        """Return the iterations, 0 being the original model."""
        return [{"iteration": iteration} for iteration in range(min(trials, len(self.log) + 1))]

    @contextmanager
    def applied(self, chat_model: ChatModel, setting: dict) -> Iterator[None]:
        """Edit the weights in place; leaving restores them bit for bit."""
        with EditedModel(chat_model.writers, rounding=self.rounding) as edited:
            edited.apply(self.log.at_iteration(setting["iteration"]))
            yield
