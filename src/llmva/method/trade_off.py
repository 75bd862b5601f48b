"""The trade-off between both failures, as one number: beta moves the last edit's target on safety prompts (ours).

The ridge edit asks for u.x = w.x on safety prompts. With beta it asks for

    u.x = w.x + beta sigma_a     on safety prompts,     u.x = 0     on neutral text,

sigma_a being the deviation of the sublayer's projections on v_a (Eq. 7). The solution is u(beta) = u(0) + beta u_1, so
that u_1 is solved once and every beta is exact and free. beta > 0 answers more, beta < 0 refuses more. Only the last
edit is moved: offsets in every edit of a loop pile up, and language breaks.
"""

from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Self

import numpy
import pandas

from llmva.core.errors import InputError
from llmva.edits.log import EditLog, SublayerEdit
from llmva.method.iteration import Observer
from llmva.method.ridge_edit import offset_input_vector
from llmva.models.activations import Capture
from llmva.models.sources import EDIT_LOG
from llmva.prompts.pools import draw_sample

# Of an aligned model's folder.
TRADE_OFF = "trade_off.safetensors"
# What is preferred, in words, and the weight of answered toxic prompts in the loss.
PREFERENCES = {"helpful": 0.2, "balanced": 0.5, "safe": 0.8}


@dataclass(frozen=True, eq=False)
class TradeOff:
    """An edit log whose last edit can be moved.

    Attributes
    ----------
    log : EditLog
        Of ridge edits, up to the chosen iteration.
    offsets : EditLog
        One iteration: what beta = 1 adds to each edit of the last one, in `input_vector`. Empty where the log is.
    """

    log: EditLog
    offsets: EditLog

    def at(self, beta: float) -> EditLog:
        """Return the log with the last edit solved for beta; 0 gives the log as it is.

        Raises
        ------
        InputError
            When beta is no number from -1 to 1, where the frontier is measured.
        """
        require_beta(beta)
        if not len(self.offsets) or beta == 0:
            return self.log
        offsets = {edit.sublayer: edit.input_vector for edit in self.offsets.iterations[0]}
        moved = (
            replace(edit, input_vector=edit.input_vector + numpy.float32(beta) * offsets[edit.sublayer])
            for edit in self.log.iterations[-1]
        )
        return self.log.at_iteration(len(self.log) - 1).appended(moved)

    def save(self, path: Path, metadata: dict[str, object]) -> None:
        """Write the last edits as the loop made them, and the offsets, as an edit log of two iterations."""
        EditLog((*self.log.iterations[-1:], *self.offsets.iterations)).save(path, metadata)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read the trade-off of an aligned model's folder, whichever beta its own log has.

        Raises
        ------
        InputError
            When a file is missing or damaged.
        """
        log, parts = EditLog.load(Path(folder) / EDIT_LOG), EditLog.load(Path(folder) / TRADE_OFF)
        if len(parts) != 2 or not len(log):
            raise InputError(f"{folder}/{TRADE_OFF}: not the last edits and their offsets; write the folder again")
        last, offsets = parts.iterations
        known = {edit.sublayer: edit.input_vector.shape for edit in offsets}
        if known != {edit.sublayer: edit.input_vector.shape for edit in last}:
            raise InputError(f"{folder}/{TRADE_OFF}: has offsets of other edits; write the folder again")
        return cls(log.at_iteration(len(log) - 1).appended(last), EditLog((offsets,)))


def solve_offsets(observer: Observer, log: EditLog) -> EditLog:
    """Solve for what beta = 1 adds to a log's last edits, from the sample and the neutral text that they came from.

    The observer's model is left with all edits but the last.
    """
    if not len(log):
        return EditLog()
    last, settings = len(log) - 1, observer.settings
    observer.edited.apply(log.at_iteration(last))
    sample = draw_sample(observer.pool, settings.sample_per_dataset, settings.seed, last)
    capture = Capture(inputs=True, final=False, basis=settings.basis)
    read = observer.examiner.read(sample["prompt"].tolist(), capture)
    quiet = observer.neutral_inputs()

    def solve(edit: SublayerEdit) -> SublayerEdit:
        projections = read.outputs[edit.sublayer].astype(numpy.float64) @ edit.answer_vector
        vector = offset_input_vector(
            float(numpy.std(projections, ddof=1)),
            read.inputs[edit.sublayer],
            quiet.get(edit.sublayer),
            neutral_weight=settings.neutral_weight,
            damping=settings.damping,
            device=observer.solver_device,
        )
        return replace(edit, input_vector=vector.astype(numpy.float32), bias_step=0.0)

    return EditLog((tuple(solve(edit) for edit in log.iterations[-1]),))


def require_beta(beta: float) -> None:
    """Raise an `InputError` unless beta is a number from -1 to 1."""
    if isinstance(beta, bool) or not isinstance(beta, Real) or not -1 <= beta <= 1:
        raise InputError(f"beta: is {beta!r}; choose a number from -1 (refuses more) to 1 (answers more)")


def weight_of(preference: str | float) -> float:
    """Return w of the loss for `balanced`, `safe`, `helpful`, or a weight of its own, as a number or in digits."""
    try:
        weight = PREFERENCES.get(str(preference).lower())
        weight = float(preference) if weight is None else weight
    except (ValueError, TypeError):
        weight = -1.0
    if isinstance(preference, bool) or not 0 <= weight <= 1:
        raise InputError(f"prefer: is {preference!r}; choose {', '.join(PREFERENCES)}, or a weight from 0 to 1")
    return weight


def choose_beta(trials: pandas.DataFrame, weight: float) -> float:
    """Return the beta with the lowest w ASR + (1 - w) ORR on validation; of equal ones the smallest move.

    Parameters
    ----------
    trials : DataFrame
        One row per beta: beta, strict_asr, strict_orr. A broken reply counts as a failure of either kind.
    weight : float
        w, from 0 (only refused benign prompts count) to 1 (only answered toxic ones).
    """
    loss = weight * trials["strict_asr"] + (1 - weight) * trials["strict_orr"]
    # Rounding must not tell apart what is equal.
    equal = trials.loc[loss <= loss.min() + 1e-9, "beta"]
    return float(equal.loc[equal.abs().idxmin()])
