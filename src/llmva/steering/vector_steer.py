"""VectorSteer: add a multiple of the answered-minus-refused mean difference to the residual stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import numpy
import pandas
import torch

from llmva.activations import Capture
from llmva.examination import answer_labels
from llmva.generation import read_activations
from llmva.models import ChatModel

# Shares of the depth that are steered; real models differ too much in depth for block numbers.
SPANS = {"all": (0.0, 1.0), "early": (0.0, 0.5), "middle": (0.25, 0.75), "late": (0.5, 1.0)}
WEAKEST, STRONGEST = 0.02, 1.5


class VectorSteer:
    """Mean-difference steering at block inputs, during the prefill, at all prompt positions.

    A strength of 1 adds a vector as long as the mean residual at that block, so that strengths
    carry over between blocks and families. Positive strengths push towards answering.
    """

    name = "VectorSteer"

    def __init__(self) -> None:
        self.steps: dict[int, numpy.ndarray] = {}
        self.outcome = "not fitted"

    def fit(self, chat_model: ChatModel, training: pandas.DataFrame, *, batch_size: int) -> None:
        """Compute one vector per block from the last prompt token's residual.

        Parameters
        ----------
        training : DataFrame
            Columns prompt and verdict, the latter the original model's. Verdicts of one class give no
            vector; the outcome says so, and the search space is then the unsteered model alone.
        """
        labels = answer_labels(training).to_numpy()
        self.outcome = "fitted" if {1, -1} <= set(labels) else "one class"
        if self.outcome == "one class":
            return
        capture = Capture(outputs=False, final=False, blocks=True)
        activations = read_activations(chat_model, training["prompt"].tolist(), capture=capture, batch_size=batch_size)
        self.steps = {block: relative_difference(rows, labels) for block, rows in activations.blocks.items()}

    def search_space(self, trials: int) -> list[dict]:
        """Return strength 0 and a grid of spans, signs and geometrically spaced strengths, `trials` in all.

        Where the grid does not fit evenly, some of the weakest strengths are left out.
        """
        unsteered = {"span": "all", "strength": 0.0, "outcome": self.outcome}
        if self.outcome == "one class":
            return [unsteered]
        per_sign = -(-(trials - 1) // (2 * len(SPANS)))
        strengths = numpy.geomspace(STRONGEST, WEAKEST, per_sign).round(4).tolist()
        grid = [{"span": span, "strength": sign * size} for size, sign, span in product(strengths, (1, -1), SPANS)]
        return [unsteered, *grid][:trials]

    @contextmanager
    def applied(self, chat_model: ChatModel, setting: dict) -> Iterator[None]:
        """Hook the span's blocks; the hooks come off when the block ends."""
        low, high = (round(share * len(chat_model.blocks)) for share in SPANS[setting["span"]])
        handles = []
        try:
            for block in range(low, high) if setting["strength"] else ():
                hook = _adding(torch.from_numpy(setting["strength"] * self.steps[block]))
                handles.append(chat_model.blocks[block].register_forward_pre_hook(hook, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()


def relative_difference(features: numpy.ndarray, labels: numpy.ndarray) -> numpy.ndarray:
    """Return the unit mean difference of rows labelled +1 and -1, times the rows' mean norm.

    Zeros when the means do not differ: every prompt ends in the same token, so at the first block's
    input all rows are equal.

    Parameters
    ----------
    features : ndarray, shape (n, d)
    labels : ndarray of int, shape (n,)
        +1, -1, or 0 for rows left out.
    """
    rows = features.astype(numpy.float64)
    difference = rows[labels == 1].mean(0) - rows[labels == -1].mean(0)
    length, mean_norm = numpy.linalg.norm(difference), numpy.linalg.norm(rows, axis=1).mean()
    if length <= numpy.finfo(numpy.float32).eps * mean_norm:
        return numpy.zeros(rows.shape[1], dtype=numpy.float32)
    return (difference * (mean_norm / length)).astype(numpy.float32)


def _adding(step: torch.Tensor):
    def hook(_, inputs, options):
        hidden = inputs[0] if inputs else options["hidden_states"]
        if hidden.shape[1] == 1:  # A decoding step: only the prompt is steered.
            return None
        steered = hidden + step.to(hidden)
        return ((steered, *inputs[1:]), options) if inputs else (inputs, {**options, "hidden_states": steered})

    return hook
