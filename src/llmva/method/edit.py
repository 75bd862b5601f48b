"""The rank-1 edit that ties the answer projection to the safety projection (Eq. 7 to 9).

In the orientation of `torch.nn.Linear.weight`, (d_out, d_in), an edit is

    W <- W + v_a (s v_b - v_a)^T W        b <- b + v_a (s v_b - v_a)^T b        s = sigma_a / sigma_b

and afterwards the projection of every output on v_a is s times what its projection on v_b was. With W the
weight as the edits before have left it, T edits add up to W0 + sum_t a_t u_t^T, of rank T at most: a_t = v_a is the
output vector and u_t = W^T (s v_b - v_a) the input vector. Both are kept in float32, and the sum is cast
to the module's type once, so low precision does not pile up over iterations.
"""

import numpy
import torch

from llmva.edits.log import SublayerEdit

UNIT_TOLERANCE = 1e-4


def projection_scale(features: numpy.ndarray, answer: numpy.ndarray, benign: numpy.ndarray) -> float:
    """Return sigma_a / sigma_b, the standard deviations (ddof 1) of the projections on v_a and v_b (Eq. 7).

    Parameters
    ----------
    features : (n, d) float array
        The sublayer's outputs on the training sample.
    answer, benign : (d,) float array
        Unit vectors.

    Returns
    -------
    float
        nan when either deviation is not finite or vanishes: less than float32 features of this size resolve.
    """
    features = numpy.asarray(features, dtype=numpy.float64)
    if len(features) < 2 or not numpy.isfinite(features).all():
        return float("nan")
    sigma_answer, sigma_benign = numpy.std(features @ numpy.column_stack([answer, benign]), axis=0, ddof=1)
    resolution = numpy.finfo(numpy.float32).eps * numpy.sqrt(numpy.mean(numpy.sum(features**2, axis=1)))
    if not min(sigma_answer, sigma_benign) > resolution:
        return float("nan")
    return float(sigma_answer / sigma_benign)


def solve_edit(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    sublayer: str,
    answer: numpy.ndarray,
    benign: numpy.ndarray,
    scale: float,
    input_vector: numpy.ndarray | None = None,
) -> SublayerEdit:
    """Solve for the smallest edit that makes the answer projection `scale` times the benign one (Eq. 7 to 9).

    Parameters
    ----------
    weight : (d_out, d_in) tensor
        The module's current weight, on any device.
    bias : (d_out,) tensor or None
        Its current bias.
    answer, benign : (d_out,) float array
        v_a and v_b, unit vectors.
    scale : float
        s = sigma_a / sigma_b.
    input_vector : (d_in,) float array, optional
        Taken instead of the exact one (see `llmva.method.ridge_edit`); the bias is edited exactly either way.

    Raises
    ------
    ValueError
        When a vector is not of unit length or the scale is not finite: there is no edit, skip the sublayer.
    """
    for name, vector in {"answer": answer, "benign": benign}.items():
        if not abs(numpy.linalg.norm(vector) - 1) < UNIT_TOLERANCE:
            raise ValueError(f"{sublayer}: the {name} vector is not of unit length")
    if not numpy.isfinite(scale):
        raise ValueError(f"{sublayer}: the scale is {scale}")
    exact, bias_step = edit_target(weight, bias, answer=answer, benign=benign, scale=scale)
    return SublayerEdit(
        sublayer=sublayer,
        output_vector=numpy.asarray(answer, dtype=numpy.float32),
        input_vector=(exact if input_vector is None else input_vector).astype(numpy.float32),
        bias_step=bias_step,
        answer_vector=numpy.asarray(answer, dtype=numpy.float32),
        benign_vector=numpy.asarray(benign, dtype=numpy.float32),
        scale=float(scale),
    )


def edit_target(
    weight: torch.Tensor, bias: torch.Tensor | None, *, answer: numpy.ndarray, benign: numpy.ndarray, scale: float
) -> tuple[numpy.ndarray, float]:
    """Return W^T (s v_b - v_a), (d_in,), and (s v_b - v_a).b, the input vector and bias step of Eq. 9."""
    step = scale * numpy.asarray(benign, dtype=numpy.float64) - answer
    return _times(step, weight), 0.0 if bias is None else float(_times(step, bias))


def _times(vector: numpy.ndarray, tensor: torch.Tensor) -> numpy.ndarray:
    tensor = tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
    return (torch.from_numpy(vector).to(tensor) @ tensor).cpu().numpy()
