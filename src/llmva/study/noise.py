"""A model with noise on its weights: what broken language looks like, for the metrics to be tried on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from llmva.core.provenance import seed_for


@contextmanager
def noised(model: torch.nn.Module, level: float, seed: int) -> Iterator[None]:
    """Add Gaussian noise to every weight matrix inside the block and restore them bit for bit.

    Parameters
    ----------
    level : float
        Standard deviation of the noise, in standard deviations of each matrix.
    seed : int
        The same seed gives the same noise, scaled by the level.
    """
    generator = torch.Generator().manual_seed(seed_for(seed, "noise") % 2**63)
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    originals = [weight.detach().clone() for weight in matrices]
    try:
        with torch.no_grad():
            for weight in matrices:
                noise = torch.randn(weight.shape, generator=generator).to(weight)
                weight.add_(noise, alpha=level * float(weight.float().std()))
        yield
    finally:
        with torch.no_grad():
            for weight, original in zip(matrices, originals, strict=True):
                weight.copy_(original)
