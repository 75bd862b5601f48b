"""SwFC, StTP and StMP on the axis of answering: one direction, so that each trades one kind of error for the other."""

from contextlib import AbstractContextManager

from llmva.models.chat_model import ChatModel
from llmva.steering.base import TrainingData, one_class
from llmva.steering.residual import ResidualMethod
from llmva.steering.runtime.boundary import Boundary, fit_boundary
from llmva.steering.runtime.steering import RuntimeSteering

ANSWERING, REFUSING = DIRECTIONS = ("towards answering", "towards refusing")


class AnswerAxis(ResidualMethod):
    """One of the updates of `llmva.steering.runtime.updates`, at one block's output, at all tokens.

    The boundary is that of the model's own replies to training prompts, answers against refusals, each a mean over
    its tokens. Both directions are tried, and a strength is the papers' alpha.

    Attributes
    ----------
    boundaries : dict of int to Boundary
        By layer, towards answering.
    """

    version = 1
    reads = "residuals, means over the model's own replies"
    acts = "one block's output at all tokens"
    variants = DIRECTIONS

    def _shortcoming(self, training: TrainingData) -> str | None:
        return super()._shortcoming(training) or (None if training.is_finite else "non-finite residuals")

    def _fit(self, training: TrainingData) -> None:
        self.boundaries = fit_answer_boundaries(training)

    def _cells(self, variant: str) -> list[dict]:
        return [{"layer": layer} for layer in self.boundaries]

    def _steered(self, chat_model: ChatModel, setting: dict) -> AbstractContextManager:
        boundary = self.boundaries[setting["layer"]]
        if setting["variant"] == REFUSING:
            boundary = boundary.reversed()
        return RuntimeSteering(boundary, self.name, setting["strength"], setting["layer"]).applied(chat_model)


class SwFC(AnswerAxis):
    """A constant step at every token, in units of the gap between answers and refusals."""

    name = "SwFC"
    weakest, strongest = 0.1, 5.0


class StTP(AnswerAxis):
    """Tokens on the wrong side go to a point beyond the mean of the right side's replies."""

    name = "StTP"
    acts = "one block's output at tokens on the wrong side"
    weakest, strongest = 0.5, 36.0


class StMP(AnswerAxis):
    """Tokens on the wrong side are mirrored at the boundary."""

    name = "StMP"
    acts = "one block's output at tokens on the wrong side"
    weakest, strongest = 0.25, 4.0


def fit_answer_boundaries(training: TrainingData) -> dict[int, Boundary]:
    """Return the boundary between replies that answer and replies that refuse, by layer; there must be both."""
    clear = training.answered != 0
    rows = training.rows[clear]
    pooled = training.read(rows["prompt"].tolist(), rows["response"].tolist(), positions="mean")
    return {layer: separate(features, training.answered[clear]) for layer, features in pooled.items() if layer}


def separate(features, labels) -> Boundary:
    """Return the boundary between rows labelled +1 and -1, towards +1; rows labelled 0 are left out."""
    if one_class(labels):
        raise ValueError("labels of one class have no boundary")
    return fit_boundary(features[labels == 1], features[labels == -1])
