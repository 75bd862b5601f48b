"""Steer a model along one boundary while it reads and writes; the hooks are those of all other methods."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch

from llmva.models.chat_model import ChatModel
from llmva.steering.residual import Pass, changed_residuals
from llmva.steering.runtime.boundary import Boundary
from llmva.steering.runtime.updates import GATED, UPDATES

# `all`: prompt and reply; `response`: what was generated; `last`: the prompt's last token, which begins the reply;
# `writing`: that and what was generated, so every token whose output is one of the reply's.
Position = Literal["all", "response", "last", "writing"]
POSITIONS = get_args(Position)


@dataclass
class Tally:
    """What a steering did so far: tokens in its positions, those that were moved, and the sum of |h' - h|.

    They stay where the model is until they are asked for: to wait for a GPU at each token would cost time.
    """

    counts: torch.Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))

    def add(self, where: torch.Tensor, gate: torch.Tensor, shift: torch.Tensor) -> None:
        """Count a pass: which tokens were in the positions, which were moved, and by how much."""
        self.counts = self.counts.to(shift.device) + torch.stack(
            [where.sum().double(), gate.sum().double(), shift.abs().sum().double()]
        )

    @property
    def tokens(self) -> int:
        """Tokens in the positions."""
        return int(self.counts[0])

    @property
    def share_moved(self) -> float:
        """The share of them that were moved; nan before the first."""
        return float(self.counts[1] / self.counts[0])

    @property
    def mean_distance(self) -> float:
        """Mean |h' - h| over all of them, in the units of the stream; nan before the first."""
        return float(self.counts[2] / self.counts[0])


@dataclass(frozen=True, eq=False)
class RuntimeSteering:
    """One update at one site.

    Attributes
    ----------
    boundary : Boundary
    method : str
        SwFC, StTP or StMP.
    alpha : float
    layer : int
        1 to L: the stream behind so many blocks, as in `hidden_states[layer]`.
    position : str
        Which tokens are steered; see `Position`.
    always : bool
        Whether tokens on the right side of the boundary are moved too: the control without a gate.
    """

    boundary: Boundary
    method: str
    alpha: float
    layer: int
    position: Position = "all"
    always: bool = False
    tally: Tally = field(default_factory=Tally)

    @contextmanager
    def applied(self, chat_model: ChatModel) -> Iterator[Tally]:
        """Steer inside the block; the tally goes on counting from where it was."""
        with changed_residuals(chat_model, {self.layer: self.change}):
            yield self.tally

    def change(self, hidden: torch.Tensor, now: Pass) -> torch.Tensor:
        """Return the stream, (batch, positions, d), with the tokens moved; others keep every bit."""
        return self.moved(hidden, self.marked(now).to(hidden.device))

    def marked(self, now: Pass) -> torch.Tensor:
        """Return which tokens of a pass are in the positions, (batch, positions) of bool."""
        if self.position == "response":
            return now.generated
        if self.position == "all":
            return now.prompt | now.generated
        where = now.generated.clone() if self.position == "writing" else torch.zeros_like(now.generated)
        if now.last is not None:
            where[:, now.last] = True
        return where

    def moved(self, hidden: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Return the stream with the marked tokens moved, where the gate is open."""
        gate, shift = self.shifts(hidden, where)
        self.tally.add(where, gate, shift)
        direction = torch.from_numpy(self.boundary.direction).to(hidden.device)
        return torch.where(gate[..., None], (hidden.float() + shift[..., None] * direction).to(hidden.dtype), hidden)

    def shifts(self, hidden: torch.Tensor, where: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which of the marked tokens are moved and how far along the direction, each of the shape of `where`."""
        # Sums over d in bfloat16 would be off by more than a gate's margin.
        places = hidden.float() @ torch.from_numpy(self.boundary.direction).to(hidden.device)
        gate = where & (places < self.boundary.threshold) if self.method in GATED and not self.always else where
        shift = UPDATES[self.method](places, self.boundary, self.alpha) - places
        return gate, torch.where(gate, shift.nan_to_num(0.0, 0.0, 0.0), 0.0)
