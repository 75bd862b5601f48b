"""AlphaSteer: push towards refusing, through a gate that is shut for benign prompts and open for toxic ones.

The published method adds `M^T h` to the residual stream, where h is the last prompt token's and M a matrix
fitted under a null-space constraint. Every row it is fitted to has the same target, the refusal step r, so
M is exactly `u r^T` for one vector u: a gate `h . u` times a step r. Only u and r are computed and stored here.
"""

from contextlib import AbstractContextManager

import numpy
import scipy.linalg
import torch

from llmva.models.chat_model import ChatModel
from llmva.steering.base import TrainingData, one_class
from llmva.steering.baselines.vector_steer import relative_difference
from llmva.steering.residual import Change, Pass, ResidualMethod, add_where, changed_residuals
from llmva.steering.search import in_turn

NULL_RATIOS = (0.4, 0.5, 0.6)
DAMPING = 0.01


class AlphaSteer(ResidualMethod):
    """A refusal step at block inputs, during the prefill, at all prompt positions, scaled by a gate per prompt.

    The gate is read from the last prompt token as it is when it reaches the block, so after the steering of
    earlier blocks. A strength of 1 and an open gate add a vector as long as the mean residual at that block.
    Positive strengths push towards refusing. Spared are all benign training prompts and the neutral ones;
    the gate is fitted on all toxic ones.

    Attributes
    ----------
    steps : dict of int to (d,) array
        r by site; see `relative_difference`.
    gates : dict of (variant, site) to dict of float to (d,) array
        u by null ratio; see `find_gates`.
    """

    name = "AlphaSteer"
    version = 1
    reads = "residuals at the last prompt token"
    acts = "block inputs at the prompt, through a gate"
    # The published blocks, scaled to other depths, lie in the first.
    spans = {"published": (0.25, 0.6), "middle": (0.25, 0.75), "late": (0.5, 1.0), "all": (0.0, 1.0)}
    weakest, strongest = 0.03, 2.0
    spares_neutral = True

    def samples(self, training: TrainingData) -> dict[str, tuple[numpy.ndarray, numpy.ndarray]]:
        """Return by variant which training rows are spared and which open the gate, two masks (n,)."""
        return {"": (training.benign == 1, training.benign == -1)}

    def _shortcoming(self, training: TrainingData) -> str | None:
        if one_class(training.answered):
            return "one class"
        spared, harmful = zip(*self.samples(training).values(), strict=True)
        if not all(rows.any() for rows in spared):
            return "nothing to spare"
        if not all(rows.any() for rows in harmful):
            return "no toxic prompts"
        return None if training.is_finite else "non-finite"

    def _fit(self, training: TrainingData) -> None:
        samples = self.samples(training)
        self.steps, self.gates = {}, {}
        for site in range(self.depth):
            rows = training.residuals[site]
            self.steps[site] = relative_difference(rows, -training.answered)
            for variant, (spared, harmful) in samples.items():
                handled = [rows[spared]]
                if self.spares_neutral and training.neutral:
                    handled.append(training.neutral_residuals[site])
                self.gates[variant, site] = find_gates(numpy.concatenate(handled), rows[harmful])

    def _cells(self, variant: str) -> list[dict]:
        return in_turn(self._span_cells(), [{"null_ratio": ratio} for ratio in self.gates[variant, 0]])

    def _steered(self, chat_model: ChatModel, setting: dict) -> AbstractContextManager:
        changes = {}
        for site in self._blocks(setting):
            gate = self.gates[setting.get("variant", ""), site][setting["null_ratio"]]
            changes[site] = _gated(gate, setting["strength"] * self.steps[site])
        return changed_residuals(chat_model, changes)


def find_gates(handled: numpy.ndarray, harmful: numpy.ndarray) -> dict[float, numpy.ndarray]:
    """Return u for each null ratio, such that `h . u` is near 0 for handled rows and near 1 for harmful ones.

    With H_b the handled and H_m the harmful rows and Q the lowest eigenvectors of `H_b^T H_b`, uncentred,
    `u = Q (Q^T H_m^T H_m Q + lambda I)^-1 Q^T H_m^T 1`. That is the published ridge regression of H_m Q Q^T
    on equal targets (AlphaSteer, closed-form solution), whose matrix is u r^T.

    Parameters
    ----------
    handled : ndarray, shape (n_b, d)
    harmful : ndarray, shape (n_m, d)

    Returns
    -------
    dict of float to (d,) float64 array
        A ratio is the share of d that Q spans, but the exact null space, of d - n_b dimensions, is always in
        Q whole: rounding alone would decide which part of it came first. Of ratios that this makes equal only
        the first is there. u is zero where the harmful rows lie in the span of the others.
    """
    handled, harmful = handled.astype(numpy.float64), harmful.astype(numpy.float64)
    count, size = handled.shape
    # The leading right singular vectors span the complement of Q; unlike H_b^T H_b, they square no rounding.
    leading = numpy.linalg.svd(handled, full_matrices=False)[2]
    widths = {max(int(ratio * size), size - count): ratio for ratio in reversed(NULL_RATIOS)}
    return {ratio: _gate(harmful, leading[: size - width]) for width, ratio in sorted(widths.items())}


def _gate(harmful: numpy.ndarray, leading: numpy.ndarray) -> numpy.ndarray:
    width = harmful.shape[1] - len(leading)
    free = harmful - (harmful @ leading.T) @ leading
    energy = (free**2).sum()
    if energy <= numpy.finfo(numpy.float32).eps ** 2 * (harmful**2).sum():
        return numpy.zeros(harmful.shape[1])
    # The published lambda, 10, means something else wherever residuals are larger or smaller, by orders of
    # magnitude between families. Relative to the mean diagonal of Q^T H_m^T H_m Q it means the same everywhere.
    gram = free @ free.T
    gram[numpy.diag_indices_from(gram)] += DAMPING * energy / width
    # The same solution through rows instead of features: the smaller system for real models.
    return free.T @ scipy.linalg.solve(gram, numpy.ones(len(gram)), assume_a="pos")


def _gated(gate: numpy.ndarray, step: numpy.ndarray) -> Change:
    gate, step = torch.from_numpy(gate).float(), torch.from_numpy(step).float()

    def change(hidden: torch.Tensor, now: Pass) -> torch.Tensor:
        if now.last is None:
            return hidden
        opening = hidden[:, now.last].float() @ gate.to(hidden.device)
        return add_where(hidden, now.prompt, opening[:, None] * step.to(hidden.device))

    return change
