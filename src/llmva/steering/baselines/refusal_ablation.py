"""Refusal ablation: take the refusal direction out of everything that a model writes into its residual stream."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy
import torch

from llmva.models.chat_model import ChatModel
from llmva.steering.base import TrainingData
from llmva.steering.baselines.vector_steer import relative_difference
from llmva.steering.residual import Change, Pass, changed_residuals
from llmva.steering.search import alternating_variants, unsteered

# The published filter: the last blocks' directions are too near to the words of a refusal themselves.
DEEPEST = 0.8
WEAKEST, STRONGEST = 0.05, 1.0
MAX_SITES = 8
DIRECTIONAL, AFFINE = VARIANTS = ("directional", "affine")


class RefusalAblation:
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
    finetunes = False
    hooks = True

    def __init__(self) -> None:
        self.directions: dict[int, numpy.ndarray] = {}
        self.levels: dict[int, dict[int, float]] = {}
        self.depth = 0
        self.outcome = "not fitted"

    def fit(self, training: TrainingData) -> None:
        """Compute the candidate directions.

        Without refused toxic or without answered benign prompts there are none, nor where the means do not
        differ or residuals are not finite; the outcome says so.
        """
        toxic_refused = (training.benign == -1) & (training.answered == -1)
        benign_answered = (training.benign == 1) & (training.answered == 1)
        if not toxic_refused.any() or not benign_answered.any():
            self.outcome = "no refused toxic prompts" if benign_answered.any() else "no answered benign prompts"
            return
        labels = toxic_refused.astype(int) - benign_answered
        self.depth = len(training.residuals) - 1
        self.directions = {}
        for site in range(self.depth):
            rows = training.residuals[site]
            if site < DEEPEST * self.depth and numpy.isfinite(rows).all():
                difference = relative_difference(rows, labels).astype(numpy.float64)
                if difference.any():
                    self.directions[site] = difference / numpy.linalg.norm(difference)
        means = {site: rows[benign_answered].mean(0) for site, rows in training.residuals.items()}
        self.levels = {
            site: {place: float(mean @ unit) for place, mean in means.items() if numpy.isfinite(mean).all()}
            for site, unit in self.directions.items()
        }
        self.outcome = "fitted" if self.directions else "no direction"

    def search_space(self, trials: int) -> list[dict]:
        """Return for each variant the unsteered model, then strengths from 1 down, along which sites take turns.

        The variants share the trials. Sites are shares of the depth; where there are many, evenly spaced ones.
        """
        if self.outcome != "fitted":
            return unsteered(VARIANTS)
        cells = [{"site": round(site / self.depth, 4)} for site in _spread(sorted(self.directions), MAX_SITES)]
        return alternating_variants(dict.fromkeys(VARIANTS, cells), trials, strongest=STRONGEST, weakest=WEAKEST)

    @contextmanager
    def applied(self, chat_model: ChatModel, setting: dict) -> Iterator[None]:
        """Hook blocks and, for directional ablation, sublayers; the hooks come off when the block ends."""
        if not setting["strength"]:
            yield
            return
        found = round(setting["site"] * self.depth)
        direction, strength = torch.from_numpy(self.directions[found]), setting["strength"]
        if setting["variant"] == AFFINE:
            changes = {site: _levelling(direction, strength, level) for site, level in self.levels[found].items()}
            sublayers = []
        else:
            changes = {site: lambda hidden, _: _ablated(hidden, direction, strength) for site in range(self.depth + 1)}
            sublayers = chat_model.sublayers
        with changed_residuals(chat_model, changes), ExitStack() as hooks:
            for sublayer in sublayers:
                handle = sublayer.contribution.register_forward_hook(
                    lambda _, inputs, output: _ablated(output, direction, strength)
                )
                hooks.callback(handle.remove)
            yield


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
    return [sites[int((place + 0.5) * len(sites) / count)] for place in range(count)]
