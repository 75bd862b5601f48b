"""Two-sided gating, which is ours: a prompt's safety, read once, says on which side of answering its reply belongs.

It is LLM-VA at run time. The weight edit makes the answer direction follow the safety direction for whatever is read;
here v_b decides per prompt, and v_a is corrected only in tokens that are on the wrong side of what it decided.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy
import torch

from llmva.models.chat_model import ChatModel
from llmva.steering.base import TrainingData, one_class
from llmva.steering.residual import Pass, ResidualMethod, changed_residuals
from llmva.steering.runtime.answer_axis import separate
from llmva.steering.runtime.boundary import Boundary, mean_difference, place_boundary
from llmva.steering.runtime.steering import RuntimeSteering
from llmva.steering.search import in_turn

POSITIONS = ("last", "writing")


class TwoSided(ResidualMethod):
    """Steer answering towards what a prompt's safety asks for: t = sign(v_b.h - m_b) where t (v_a.h - m_a) < 0.

    t is read from the last prompt token and holds for the whole reply. v_b and m_b are a logistic regression on the
    training prompts' residuals at that token, benign against toxic. v_a is the difference of the means of answered and
    refused ones, and m_a lies half-way: a regression's direction separates them as well, and moves the decision less.
    Steered is the last prompt token alone, or every token that writes.

    Attributes
    ----------
    safety, answering : dict of int to Boundary
        By layer: v_b, m_b and v_a, m_a.
    """

    name = "Two-sided StMP"
    version = 1
    reads = "residuals at the last prompt token"
    acts = "one block's output at tokens that the safety side contradicts"
    weakest, strongest = 0.25, 4.0
    update = "StMP"

    def _shortcoming(self, training: TrainingData) -> str | None:
        if one_class(training.benign) or one_class(training.answered):
            return "one class"
        return None if training.is_finite else "non-finite residuals"

    def _fit(self, training: TrainingData) -> None:
        sites = {layer: rows for layer, rows in training.residuals.items() if layer}
        self.safety = {layer: separate(rows, training.benign) for layer, rows in sites.items()}
        self.answering = {layer: halve(rows, training.answered) for layer, rows in sites.items()}

    def _cells(self, variant: str) -> list[dict]:
        return in_turn([{"layer": layer} for layer in self.safety], [{"position": name} for name in POSITIONS])

    def _steered(self, chat_model: ChatModel, setting: dict) -> AbstractContextManager:
        layer, alpha = setting["layer"], setting["strength"]
        sides = [self.answering[layer], self.answering[layer].reversed()]
        towards = [RuntimeSteering(boundary, self.update, alpha, layer, setting["position"]) for boundary in sides]
        return changed_residuals(chat_model, {layer: SafetyGate(self.safety[layer], *towards).change})


def halve(features: numpy.ndarray, labels: numpy.ndarray) -> Boundary:
    """Return the boundary half-way between the means of rows labelled +1 and -1; rows labelled 0 are left out."""
    positive, negative = features[labels == 1], features[labels == -1]
    return place_boundary(mean_difference(positive, negative), positive, negative)


@dataclass(eq=False)
class SafetyGate:
    """Steers each reply to the side that its prompt's safety asks for.

    Attributes
    ----------
    safety : Boundary
        v_b and m_b, towards benign.
    answering, refusing : RuntimeSteering
        What is done with the replies to benign prompts, and to toxic ones.
    """

    safety: Boundary
    answering: RuntimeSteering
    refusing: RuntimeSteering
    _benign: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))

    def change(self, hidden: torch.Tensor, now: Pass) -> torch.Tensor:
        """Return the stream, (batch, positions, d), with the tokens moved; others keep every bit."""
        if now.is_prefill:
            direction = torch.from_numpy(self.safety.direction).to(hidden.device)
            self._benign = hidden[:, now.last].float() @ direction >= self.safety.threshold
        where = self.answering.marked(now).to(hidden.device)
        benign = self._benign.to(hidden.device)[now.rows][:, None]
        return self.refusing.moved(self.answering.moved(hidden, where & benign), where & ~benign)
