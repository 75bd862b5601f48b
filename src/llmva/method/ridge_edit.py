"""LLM-VA-R's input vector: the edit of Eq. 9, fitted on data instead of exact for every conceivable input.

Eq. 9 changes what a module does to all inputs. The ridge edit asks for the same change on the inputs of
safety prompts, and for none on those of neutral text: with target w = W^T (s v_b - v_a),

    u = argmin  E_s (u.x - w.x)^2 + lambda E_n (u.x)^2 + mu tr(C_s)/d u.u
      = (C_s + lambda C_n + mu tr(C_s)/d I)^-1 C_s w,          W <- W + v_a u^T

with C_s and C_n the second moments of the module's inputs. lambda = mu = 0 gives u = w, the paper's update.
"""

from collections.abc import Callable

import numpy
import pandas
import torch
from transformers import PreTrainedTokenizerBase

from llmva.models.chat_model import encode_with_replies

# Of neutral text that are read at a look: a whole number of exchanges, about as many of each task.
NEUTRAL_TOKENS = 4096


def ridge_input_vector(
    target: numpy.ndarray,
    inputs: numpy.ndarray,
    neutral: numpy.ndarray | None,
    *,
    neutral_weight: float,
    damping: float,
    device: torch.device | None = None,
) -> numpy.ndarray:
    """Solve for the input vector of a ridge edit.

    Parameters
    ----------
    target : (d_in,) float array
        w = W^T (s v_b - v_a), the input vector of the paper's edit.
    inputs : (n, d_in) float array
        The module's inputs at the last tokens of safety prompts.
    neutral : (m, d_in) float array or None
        Its inputs at any tokens of neutral text.
    neutral_weight, damping : float
        lambda and mu, not negative.
    device : torch.device, optional
        Where a damped edit is solved, in float64 as well; by default by numpy. At the width of 8 billion
        parameters it is about ten seconds' work of a CPU core for each sublayer.

    Returns
    -------
    (d_in,) float64 array
        Where mu is 0 and the inputs do not span the space, the solution of least length.

    Notes
    -----
    A module wider than the number of rows is solved through the rows' Gram matrix, (n + m) squared: with
    A the stacked rows, scaled, and c the wanted values, u = A^T (A A^T + mu' I)^-1 c. Nothing of d_in squared
    is ever held.
    """
    safety = _scaled(inputs)
    options = {"neutral_weight": neutral_weight, "damping": damping, "device": device}
    return _solve(safety, safety @ numpy.asarray(target, dtype=numpy.float64), inputs, neutral, **options)


def offset_input_vector(
    offset: float,
    inputs: numpy.ndarray,
    neutral: numpy.ndarray | None,
    *,
    neutral_weight: float,
    damping: float,
    device: torch.device | None = None,
) -> numpy.ndarray:
    """Solve for what a ridge edit's input vector gains when its target on safety prompts is raised by `offset`.

    The target becomes w.x + offset on safety prompts and stays 0 on neutral text. Since the solution is linear in the
    target, this is added to the vector of `ridge_input_vector`, which has the other parameters too.

    Returns
    -------
    (d_in,) float64 array
    """
    safety = _scaled(inputs)
    wanted = numpy.full(len(safety), offset / numpy.sqrt(len(safety)))
    return _solve(safety, wanted, inputs, neutral, neutral_weight=neutral_weight, damping=damping, device=device)


def first_of_each_task(
    exchanges: pandas.DataFrame, tokenizer: PreTrainedTokenizerBase, tokens: int
) -> pandas.DataFrame:
    """Return the first exchanges of each task (columns task, prompt, reply), as many as have so many tokens in all."""
    # One of each task, then a second one of each, and so on.
    rows = exchanges.loc[exchanges.groupby("task").cumcount().sort_values(kind="stable").index]
    encoded, _ = encode_with_replies(tokenizer, rows["prompt"].tolist(), rows["reply"].tolist())
    total = numpy.cumsum([len(one) for one in encoded])
    return rows.head(max(1, int((total <= tokens).sum())))


def _scaled(inputs: numpy.ndarray) -> numpy.ndarray:
    return numpy.asarray(inputs, dtype=numpy.float64) / numpy.sqrt(len(inputs))


def _solve(safety, wanted, inputs, neutral, *, neutral_weight: float, damping: float, device) -> numpy.ndarray:
    if neutral is not None and len(neutral) and neutral_weight:
        quiet = numpy.asarray(neutral, dtype=numpy.float64) * numpy.sqrt(neutral_weight / len(neutral))
        safety, wanted = numpy.concatenate([safety, quiet]), numpy.concatenate([wanted, numpy.zeros(len(quiet))])
    ridge = damping * float(numpy.mean(numpy.asarray(inputs, dtype=numpy.float64) ** 2))
    if not ridge:
        return numpy.linalg.lstsq(safety, wanted, rcond=None)[0]
    if device is None:
        return _solve_damped(safety, wanted, ridge, numpy.linalg.solve)
    there = (torch.from_numpy(array).to(device) for array in (safety, wanted))
    return _solve_damped(*there, ridge, torch.linalg.solve).cpu().numpy()


def _solve_damped(rows, wanted, ridge: float, solve: Callable):
    # All other operations have the same names in numpy and in torch.
    wide = rows.shape[1] > rows.shape[0]
    square = rows @ rows.T if wide else rows.T @ rows
    diagonal = list(range(len(square)))
    square[diagonal, diagonal] += ridge
    return rows.T @ solve(square, wanted) if wide else solve(square, rows.T @ wanted)
