"""LLM-VA-R with its last edit moved along the trade-off: a finished loop, and one number to choose."""

from collections.abc import Iterator
from contextlib import contextmanager

from llmva.core.vocabulary import MOVED_LOOP
from llmva.edits.edited_model import EditedModel
from llmva.method.trade_off import TradeOff
from llmva.models.chat_model import ChatModel
from llmva.steering.base import FITTED, NOTHING_TO_FIT, SteeringMethod

# The smallest moves first: on a tie the earliest stays.
BETAS = (0.0, *(sign * size for size in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0) for sign in (-1, 1)))


class Moved(SteeringMethod):
    """A finished loop's weights for each beta; see `llmva.method.trade_off`.

    Parameters
    ----------
    trade_off : TradeOff
        The loop's log up to the chosen iteration, with its offsets.
    """

    name = MOVED_LOOP
    version = 1
    reads = "sublayer outputs and inputs at the last prompt token"
    acts = "weights of the chosen sublayers"

    def __init__(self, trade_off: TradeOff) -> None:
        self.trade_off = trade_off
        self.outcome = FITTED if len(trade_off.offsets) else NOTHING_TO_FIT

    def search_space(self, trials: int) -> list[dict]:
        """Return the betas, 0 first; 0 alone where nothing was edited."""
        betas = BETAS if len(self.trade_off.offsets) else BETAS[:1]
        return [{"beta": beta} for beta in betas[: max(trials, 1)]]

    @contextmanager
    def applied(self, chat_model: ChatModel, setting: dict) -> Iterator[None]:
        """Edit the weights in place; leaving restores them bit for bit."""
        with EditedModel(chat_model.writers) as edited:
            edited.apply(self.trade_off.at(setting["beta"]))
            yield
