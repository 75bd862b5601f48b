"""From a method to the model that is kept: its loop, the chosen iteration, and LLM-VA-R's last edit moved."""

from dataclasses import dataclass

import pandas

from llmva.core.errors import InputError
from llmva.core.store import Stage
from llmva.core.vocabulary import ORIGINAL, OUR_LOOP
from llmva.edits.log import EditLog
from llmva.method.trade_off import TradeOff, choose_beta, weight_of
from llmva.study.evaluation import evaluate_loop, evaluate_original
from llmva.study.loop_variants import read_loop, run_alignment, run_llm_va_r
from llmva.study.study import Study
from llmva.study.trade_off import evaluate_moved, read_trade_off, read_trials, solve_trade_off, trace_trade_off


@dataclass(frozen=True, eq=False)
class Chosen:
    """What becomes of a finished loop.

    Attributes
    ----------
    loop : Stage
        The finished loop.
    log : EditLog
        The edits of the chosen model.
    trade_off : TradeOff, optional
        Of LLM-VA-R, which has one.
    trials : DataFrame, optional
        Its validation metrics by beta.
    beta : float
        The chosen one; 0 is the loop's own.
    """

    loop: Stage
    log: EditLog
    trade_off: TradeOff | None = None
    trials: pandas.DataFrame | None = None
    beta: float = 0.0

    def show_trials(self) -> pandas.DataFrame:
        """Return both failures and the share of broken replies by beta; no row where nothing can be moved."""
        shown = ["strict_asr", "strict_orr", "degenerate", "strict_f1"]
        return pandas.DataFrame(columns=shown) if self.trials is None else self.trials[shown].round(3)


def run_method(study: Study, method: str) -> Stage:
    """Run a method's loop, candidates for L_select included."""
    return run_llm_va_r(study) if method == OUR_LOOP else run_alignment(study)


def choose_model(study: Study, method: str, loop: Stage, prefer: float | None = None) -> Chosen:
    """Return the model of a loop's chosen iteration, with LLM-VA-R's last edit moved as is preferred.

    `prefer` is the weight of answered toxic prompts; without one the edit stays as the loop made it.
    """
    finished = read_loop(loop)
    log = finished.log.at_iteration(finished.choice.best_iteration)
    if method != OUR_LOOP:
        return Chosen(loop, log)
    solved = solve_trade_off(study, loop)
    trade_off, trials = read_trade_off(loop, solved), read_trials(trace_trade_off(study, loop, solved))
    beta = 0.0 if prefer is None else choose_beta(trials.reset_index(), prefer)
    return Chosen(loop, trade_off.at(beta), trade_off, trials, beta)


def evaluate_aligned(study: Study, method: str, chosen: Chosen) -> dict[str, Stage]:
    """Let the original and the aligned model answer the test prompts and the tasks, once."""
    moved = evaluate_moved(study, chosen.loop, chosen.beta) if chosen.beta else None
    return {ORIGINAL: evaluate_original(study), method: moved or evaluate_loop(study, method, chosen.loop)}


def read_preference(wanted: str | float | None, method: str) -> float | None:
    """Return the weight that a preference stands for; None, or nothing said, is none.

    Raises
    ------
    InputError
        When it is no preference, or for a method whose last edit cannot be moved.
    """
    if wanted is None or wanted == "":
        return None
    if method != OUR_LOOP:
        raise InputError(
            f"prefer: moves the last edit of {OUR_LOOP}, which {method} does not have; leave one of them out"
        )
    return weight_of(wanted)
