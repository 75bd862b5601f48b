"""LLM-VA-R's input vector: the edit of Eq. 9, fitted on data instead of exact for every conceivable input.

Eq. 9 changes what a module does to all inputs. The ridge edit asks for the same change on the inputs of
safety prompts, and for none on those of neutral text: with target w = W^T (s v_b - v_a),

    u = argmin  E_s (u.x - w.x)^2 + lambda E_n (u.x)^2 + mu tr(C_s)/d |u|^2
      = (C_s + lambda C_n + mu tr(C_s)/d I)^-1 C_s w,          W <- W + v_a u^T

with C_s and C_n the second moments of the module's inputs. lambda = mu = 0 gives u = w, the paper's update.
"""

import numpy


def ridge_input_vector(
    target: numpy.ndarray,
    inputs: numpy.ndarray,
    neutral: numpy.ndarray | None,
    *,
    neutral_weight: float,
    damping: float,
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
    target = numpy.asarray(target, dtype=numpy.float64)
    rows, wanted = _scaled_rows(inputs, neutral, neutral_weight, target)
    ridge = damping * float(numpy.mean(numpy.asarray(inputs, dtype=numpy.float64) ** 2))
    if not ridge:
        return numpy.linalg.lstsq(rows, wanted, rcond=None)[0]
    if rows.shape[1] <= rows.shape[0]:
        return _solve(rows.T @ rows, ridge, rows.T @ wanted)
    return rows.T @ _solve(rows @ rows.T, ridge, wanted)


def _scaled_rows(inputs, neutral, neutral_weight, target) -> tuple[numpy.ndarray, numpy.ndarray]:
    safety = numpy.asarray(inputs, dtype=numpy.float64) / numpy.sqrt(len(inputs))
    wanted = safety @ target
    if neutral is None or not len(neutral) or not neutral_weight:
        return safety, wanted
    quiet = numpy.asarray(neutral, dtype=numpy.float64) * numpy.sqrt(neutral_weight / len(neutral))
    return numpy.concatenate([safety, quiet]), numpy.concatenate([wanted, numpy.zeros(len(quiet))])


def _solve(square: numpy.ndarray, ridge: float, right: numpy.ndarray) -> numpy.ndarray:
    square[numpy.diag_indices_from(square)] += ridge
    return numpy.linalg.solve(square, right)
