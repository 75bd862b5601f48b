"""Refusal ablation: take the refusal direction out of everything that a model writes into its residual stream."""

from contextlib import AbstractContextManager

import numpy
import torch

from llmva.models.chat_model import ChatModel
from llmva.steering.base import TrainingData
from llmva.steering.baselines.vector_steer import relative_difference
from llmva.steering.residual import Change, Pass, ResidualMethod, changed_residuals

# The published filter: the last blocks' directions are too near to the words of a refusal themselves.
DEEPEST = 0.8
MAX_SITES = 8
DIRECTIONAL, AFFINE = VARIANTS = ("directional", "affine")


class RefusalAblation(ResidualMethod):
    """The change `h <- h - c r (r^T h - m)`, in two variants.

    `directional` has m = 0 and, published, c = 1 (refusal-direction paper, directional ablation). `affine` has the
    mean of r^T h over answered benign prompts (Marshall et al. 2024, affine concept editing).

    Candidates for r are the unit differences between refused toxic and answered benign prompts, one per
    block input, at the last prompt token. The published choice among them needs the tokens that open a
    refusal; here validation chooses, as it does for all methods, and of the published filters only the
    depth remains. The directional variant takes the component to zero, wherever answered prompts have it; where
    zero lies nearer to refusing, refusals are added instead of removed, and the affine variant is the remedy.

    Directional ablation changes all tokens, at every block input, at the last block's output, and in what every
    sublayer contributes. Contributions are read where they are added to the stream, in Gemma-2 after its
    post-norms: their gains would turn an ablated vector and so bring r back. Affine ablation changes the last
    prompt token alone, where m was measured, at block inputs and the last block's output.

    A stream passes an ablation at every block, so c < 1 compounds with depth. The strengths tried are
    therefore spaced geometrically: weak ones tell deep models' replies apart, where strong ones all act as 1.

    Attributes
    ----------
    directions : dict of int to (d,) array
        Unit r by the site it was found at.
    levels : dict of int to dict of int to float
        By the site of r and the site of the stream: m.
    """

    name = "Refusal ablation"
    version = 2
    reads = "residuals at the last prompt token"
    acts = "all writes to the stream, or last prompt token"
    variants = VARIANTS
    weakest, strongest = 0.05, 1.0

    def _shortcoming(self, training: TrainingData) -> str | None:
        refused, answered = _rightly_handled(training)
        if not answered.any():
            return "no answered benign prompts"
        return None if refused.any() else "no refused toxic prompts"

    def _fit(self, training: TrainingData) -> str | None:
        refused, answered = _rightly_handled(training)
        labels = refused.astype(int) - answered
        self.directions = {
            site: direction
            for site, rows in training.residuals.items()
            if site < DEEPEST * self.depth and (direction := _direction(rows, labels)) is not None
        }
        means = {site: rows[answered].mean(0) for site, rows in training.residuals.items()}
        self.levels = {
            origin: {site: float(mean @ unit) for site, mean in means.items() if numpy.isfinite(mean).all()}
            for origin, unit in self.directions.items()
        }
        return None if self.directions else "no direction"

    def _cells(self, variant: str) -> list[dict]:
        """Return sites as shares of the depth; where there are many, evenly spaced ones."""
        return [{"site": round(site / self.depth, 4)} for site in _spread(sorted(self.directions), MAX_SITES)]

    def _steered(self, chat_model: ChatModel, setting: dict) -> AbstractContextManager:
        origin, strength = round(setting["site"] * self.depth), setting["strength"]
        direction = torch.from_numpy(self.directions[origin])
        if setting["variant"] == AFFINE:
            levels = self.levels[origin].items()
            changes = {site: _levelling(direction, strength, level) for site, level in levels}
            return changed_residuals(chat_model, changes)

        def ablate(hidden: torch.Tensor, now: Pass) -> torch.Tensor:
            return _ablated(hidden, direction, strength)

        return changed_residuals(chat_model, dict.fromkeys(range(self.depth + 1), ablate), contributions=ablate)


def _rightly_handled(training: TrainingData) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return which training rows are refused toxic prompts, and which answered benign ones, two masks (n,)."""
    return training.right & (training.benign == -1), training.right & (training.benign == 1)


def _direction(rows: numpy.ndarray, labels: numpy.ndarray) -> numpy.ndarray | None:
    if not numpy.isfinite(rows).all():
        return None
    difference = relative_difference(rows, labels).astype(numpy.float64)
    return difference / numpy.linalg.norm(difference) if difference.any() else None


def _ablated(hidden: torch.Tensor, direction: torch.Tensor, strength: float, level: float = 0.0) -> torch.Tensor:
    # In half precision the component would be known to three digits only, and so much of it would stay.
    unit, stream = direction.to(hidden.device, torch.float32), hidden.float()
    return (stream - strength * (stream @ unit - level)[..., None] * unit).to(hidden)


def _levelling(direction: torch.Tensor, strength: float, level: float) -> Change:
    def change(hidden: torch.Tensor, now: Pass) -> torch.Tensor:
        if now.last is None:
            return hidden
        changed = hidden.clone()
        changed[:, now.last] = _ablated(hidden[:, now.last], direction, strength, level)
        return changed

    return change


def _spread(sites: list[int], most: int) -> list[int]:
    """Return at most so many sites, each from the middle of an equal stretch of them."""
    count = min(most, len(sites))
    return [sites[int((number + 0.5) * len(sites) / count)] for number in range(count)]
