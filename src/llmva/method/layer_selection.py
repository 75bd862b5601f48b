"""Which sublayers to edit: influence on the final stream times accuracy (Eq. 5 and 6)."""

import numpy
import pandas

from llmva.core.errors import InputError
from llmva.method.control_vectors import ControlVectors


def score_sublayers(vectors: dict[str, ControlVectors], final: ControlVectors) -> pandas.DataFrame:
    """Score each sublayer by influence and accuracy, summed over both directions (Eq. 5, 6).

    Parameters
    ----------
    vectors : dict
        Control vectors by sublayer, as "attention.00" or "mlp.17".
    final : ControlVectors
        Those of the last block's residual stream, v_fin.

    Returns
    -------
    pandas.DataFrame
        One row per sublayer, attention first, then MLP, by layer. Columns: influence_answer, accuracy_answer,
        influence_benign, accuracy_benign, score. Influences are cosines and keep their sign. The score is
        nan where a vector or an accuracy is missing.
    """
    rows = {
        sublayer: {
            "influence_answer": _cosine(vectors[sublayer].answer, final.answer),
            "accuracy_answer": vectors[sublayer].answer_accuracy,
            "influence_benign": _cosine(vectors[sublayer].benign, final.benign),
            "accuracy_benign": vectors[sublayer].benign_accuracy,
        }
        for sublayer in sorted(vectors, key=canonical_order)
    }
    scores = pandas.DataFrame.from_dict(rows, orient="index").rename_axis("sublayer")
    scores["score"] = (
        scores["influence_answer"] * scores["accuracy_answer"] + scores["influence_benign"] * scores["accuracy_benign"]
    )
    return scores


def select_sublayers(scores: pandas.DataFrame, l_select: int) -> list[str]:
    """Return the `l_select` sublayers of highest score, best first, ties in canonical order.

    All sublayers with a score are returned when they are fewer; one without a score never is.

    Raises
    ------
    InputError
        When `l_select` is below 1.
    """
    if l_select < 1:
        raise InputError(f"l_select: {l_select} selects nothing; give at least 1")
    scored = scores["score"].dropna()
    scored = scored[sorted(scored.index, key=canonical_order)]
    return scored.nlargest(l_select).index.tolist()


def canonical_order(sublayer: str) -> tuple[str, int]:
    """Return the sorting key of a sublayer's name: attention 0 to L-1, then MLP 0 to L-1."""
    kind, layer = sublayer.rsplit(".", 1)
    return kind, int(layer)


def _cosine(vector: numpy.ndarray, final: numpy.ndarray) -> float:
    # Both are unit vectors, or zeros where none was found.
    return float(vector @ final) if vector.any() and final.any() else float("nan")
