"""Refusal ablation: take the refusal direction out of everything that a model writes into its residual stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import numpy
import torch

from llmva.models import ChatModel
from llmva.steering.base import UNSTEERED, TrainingData
from llmva.steering.residual import changed_residuals
from llmva.steering.vector_steer import relative_difference

# The published filter: the last blocks' directions are too near to the words of a refusal themselves.
DEEPEST = 0.8
FEWEST_STRENGTHS = 4
WEAKEST = 0.05


class RefusalAblation:
    """The change `h <- h - c r r^T h` (refusal-direction paper, directional ablation, with c = 1).

    Candidates for r are the unit differences between refused toxic and answered benign prompts, one per
    block input, at the last prompt token. The published choice among them needs the tokens that open a
    refusal; here validation chooses, as it does for all methods, and of the published filters only the
    depth remains. The component along r goes to zero, wherever answered prompts have it; where zero lies
    nearer to refusing, refusals are added instead of removed.

    Ablated are all tokens, at every block input, at the last block's output, and in what every sublayer
    contributes. Contributions are read where they are added to the stream, in Gemma-2 after its post-norms:
    their gains would turn an ablated vector and so bring r back.

    A stream passes an ablation at every block, so c < 1 compounds with depth. The strengths tried are
    therefore spaced geometrically: weak ones tell deep models' replies apart, where strong ones all act as 1.

    Attributes
    ----------
    directions : dict of int to (d,) array
        Unit r by the site it was found at.
    """

    name = "Refusal ablation"
    finetunes = False
    hooks = True

    def __init__(self) -> None:
        self.directions: dict[int, numpy.ndarray] = {}
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
        self.outcome = "fitted" if self.directions else "no direction"

    def search_space(self, trials: int) -> list[dict]:
        """Return the unsteered model, then sites, as shares of the depth, crossed with strengths from 1 down.

        There are at least four strengths, and as many more as the sites leave room for; where there are too
        many sites, evenly spaced ones. Some of the weakest strengths are left out where the grid does not fit.
        """
        if self.outcome != "fitted":
            return [dict(UNSTEERED)]
        room = trials - 1
        sites = _spread(sorted(self.directions), max(1, -(-room // FEWEST_STRENGTHS)))
        strengths = numpy.geomspace(1, WEAKEST, -(-room // len(sites))).round(4).tolist()
        shares = [round(site / self.depth, 4) for site in sites]
        grid = [{"site": share, "strength": strength} for strength, share in product(strengths, shares)]
        return [dict(UNSTEERED), *grid][:trials]

    @contextmanager
    def applied(self, chat_model: ChatModel, setting: dict) -> Iterator[None]:
        """Hook blocks and sublayers; the hooks come off when the block ends."""
        if not setting["strength"]:
            yield
            return
        direction = torch.from_numpy(self.directions[round(setting["site"] * self.depth)])
        sites = range(len(chat_model.blocks) + 1)
        change = _ablating(direction, setting["strength"])
        with changed_residuals(chat_model, {site: lambda hidden, _: change(hidden) for site in sites}):
            handles = []
            try:
                for sublayer in chat_model.sublayers:
                    hook = sublayer.contribution.register_forward_hook(lambda _, inputs, output: change(output))
                    handles.append(hook)
                yield
            finally:
                for handle in handles:
                    handle.remove()


def _ablating(direction: torch.Tensor, strength: float):
    def change(hidden: torch.Tensor) -> torch.Tensor:
        # In half precision the component would be known to three digits only, and so much of it would stay.
        unit, stream = direction.to(hidden.device, torch.float32), hidden.float()
        return (stream - strength * (stream @ unit)[..., None] * unit).to(hidden)

    return change


def _spread(sites: list[int], most: int) -> list[int]:
    """Return at most so many sites, each from the middle of an equal stretch of them."""
    count = min(most, len(sites))
    return [sites[int((place + 0.5) * len(sites) / count)] for place in range(count)]
