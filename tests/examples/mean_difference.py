"""A steering method as small as one can be: the difference of two means, added to the stream in front of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from llmva.models.chat_model import ChatModel
from llmva.steering.base import FITTED, UNSTEERED, SteeringMethod, TrainingData, one_class


class MeanDifference(SteeringMethod):
    """Moves the stream along the mean of answered minus the mean of refused prompts."""

    name = "Mean difference"
    version = 1
    reads = "residual stream at the last prompt token"
    acts = "residual stream in front of one block"
    hooks = True
    outcome = "not fitted"

    def fit(self, training: TrainingData) -> None:
        """Take the difference in front of every block."""
        if one_class(training.answered):
            self.outcome = "one class"
            return
        answered, refused = training.answered == 1, training.answered == -1
        self.directions = {
            site: rows[answered].mean(0) - rows[refused].mean(0) for site, rows in training.residuals.items()
        }
        self.outcome = FITTED

    def search_space(self, trials: int) -> list[dict]:
        """Return the unsteered model, then weaker and weaker steps in front of the middle block."""
        if self.outcome != FITTED:
            return [dict(UNSTEERED)]
        site = len(self.directions) // 2
        steps = [{"site": site, "strength": sign * 2.0**-power} for power in range(trials) for sign in (1, -1)]
        return [dict(UNSTEERED), *steps][:trials]

    @contextmanager
    def applied(self, chat_model: ChatModel, setting: dict) -> Iterator[None]:
        """Add the step to what the block reads; leaving takes the hook off."""
        if not setting["strength"]:
            yield
            return
        block = chat_model.blocks[setting["site"]]
        step = torch.tensor(setting["strength"] * self.directions[setting["site"]])

        def move(_, inputs, options):
            hidden = inputs[0] if inputs else options["hidden_states"]
            moved = hidden + step.to(hidden)
            return ((moved, *inputs[1:]), options) if inputs else (inputs, {**options, "hidden_states": moved})

        handle = block.register_forward_pre_hook(move, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
