"""A pretrained organism before it was taught to refuse: the weights that it was made from."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from llmva.core.vocabulary import UNTUNED
from llmva.models.chat_model import ChatModel, load_model
from llmva.steering.base import SteeringMethod


class Untuned(SteeringMethod):
    """No method: what the tuning started from, in a row of its own.

    A model that refuses hardly anything has no decision to refuse, and no v_a worth the name.

    Parameters
    ----------
    source : str
        Where the weights come from, as `load_model` takes it.
    """

    name = UNTUNED
    version = 1
    reads = "nothing"
    acts = "nowhere"

    def __init__(self, source: str) -> None:
        self.source = source

    def search_space(self, trials: int) -> list[dict]:
        """Return the one setting: which weights they are."""
        return [{"weights": self.source}]

    @contextmanager
    def applied(self, chat_model: ChatModel, setting: dict) -> Iterator[None]:
        """Put the weights in place of the tuned ones inside the block."""
        parameters = dict(chat_model.model.named_parameters())
        before = load_model(setting["weights"], dtype=str(chat_model.model.dtype).removeprefix("torch."))
        tuned = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        _fill(parameters, dict(before.model.named_parameters()))
        del before
        try:
            yield
        finally:
            _fill(parameters, tuned)


@torch.no_grad()
def _fill(parameters: dict[str, torch.nn.Parameter], values: dict[str, torch.Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])
