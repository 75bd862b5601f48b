"""The three updates of one site's stream along a direction: SwFC, StTP and StMP (runtime steering v2, section 3.3)."""

from collections.abc import Callable

import torch

from llmva.steering.runtime.boundary import Boundary

# StMP moves no token further than so many standard deviations beyond mu+.
MAX_DEVIATIONS = 40

# From rho of any shape, a boundary and alpha to rho', of the same shape.
Update = Callable[[torch.Tensor, Boundary, float], torch.Tensor]


def constant_step(places: torch.Tensor, boundary: Boundary, alpha: float) -> torch.Tensor:
    """Steering with a fixed coefficient (SwFC): rho + alpha Delta mu, whatever the token."""
    return places + alpha * boundary.gap


def to_target(places: torch.Tensor, boundary: Boundary, alpha: float) -> torch.Tensor:
    """Steering to a target point (StTP): mu+ + alpha sigma+."""
    return torch.full_like(places, boundary.positive_mean + alpha * boundary.positive_deviation)


def mirrored(places: torch.Tensor, boundary: Boundary, alpha: float) -> torch.Tensor:
    """Steering to the mirrored point (StMP): rho + 2 alpha (m - rho), at most mu+ + 40 sigma+.

    With alpha 0.5 a token lands on the boundary, with 1 as far beyond it as it was before it.
    """
    limit = boundary.positive_mean + MAX_DEVIATIONS * boundary.positive_deviation
    return (places + 2 * alpha * (boundary.threshold - places)).clamp(max=limit)


UPDATES: dict[str, Update] = {"SwFC": constant_step, "StTP": to_target, "StMP": mirrored}
# Those that leave tokens on the right side of the boundary as they are.
GATED = ("StTP", "StMP")
# The published grids.
ALPHAS = {
    "SwFC": (1.0, 2.0, 3.0, 4.0, 5.0),
    "StTP": (0.0, 6.0, 12.0, 18.0, 24.0, 30.0, 36.0),
    "StMP": (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0),
}
