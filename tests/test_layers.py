"""Scores and selection of sublayers against values worked out by hand."""

import numpy
import pandas
import pytest

from llmva.core.errors import InputError
from llmva.method.control_vectors import ControlVectors
from llmva.method.layer_selection import score_sublayers, select_sublayers


def vectors(answer, benign, answer_accuracy=1.0, benign_accuracy=1.0) -> ControlVectors:
    answer, benign = numpy.array(answer, dtype=float), numpy.array(benign, dtype=float)
    outcomes = ["fitted" if vector.any() else "one class" for vector in (answer, benign)]
    return ControlVectors(answer, benign, *outcomes, answer_accuracy, benign_accuracy)


FINAL = vectors([1, 0, 0], [0, 1, 0])


def scores(**values: float) -> pandas.DataFrame:
    names = [name.replace("_", ".") for name in values]
    return pandas.DataFrame({"score": list(values.values())}, index=names)


def test_score_is_influence_times_accuracy_and_keeps_its_sign():
    table = score_sublayers(
        {
            "mlp.00": vectors([0.6, 0.8, 0], [0.8, 0.6, 0], 0.9, 0.5),
            "attention.01": vectors([-1, 0, 0], [0, 0, 1], 0.8, 0.7),
        },
        FINAL,
    )
    assert table.index.tolist() == ["attention.01", "mlp.00"]
    columns = ["influence_answer", "accuracy_answer", "influence_benign", "accuracy_benign", "score"]
    assert table.columns.tolist() == columns
    assert table.loc["mlp.00"].tolist() == pytest.approx([0.6, 0.9, 0.6, 0.5, 0.84])
    assert table.loc["attention.01"].tolist() == pytest.approx([-1, 0.8, 0, 0.7, -0.8])


def test_rows_are_in_canonical_order_even_beyond_a_hundred_layers():
    one = vectors([1, 0, 0], [0, 1, 0])
    names = ["mlp.100", "mlp.11", "attention.100", "attention.02", "mlp.00"]
    table = score_sublayers(dict.fromkeys(names, one), FINAL)
    assert table.index.tolist() == ["attention.02", "attention.100", "mlp.00", "mlp.11", "mlp.100"]


def test_a_missing_vector_leaves_no_score():
    nan = float("nan")
    table = score_sublayers({"mlp.00": vectors([0, 0, 0], [0, 1, 0], nan, 1.0), "mlp.01": FINAL}, FINAL)
    assert numpy.isnan(table.at["mlp.00", "score"])
    assert table.at["mlp.00", "influence_benign"] == 1
    assert select_sublayers(table, 2) == ["mlp.01"]
    without_final = score_sublayers({"mlp.01": FINAL}, vectors([1, 0, 0], [0, 0, 0]))
    assert select_sublayers(without_final, 1) == []


def test_the_highest_scores_are_selected_best_first():
    table = scores(attention_00=-1.0, attention_01=0.5, mlp_00=0.9, mlp_01=-0.2)
    assert select_sublayers(table, 1) == ["mlp.00"]
    assert select_sublayers(table, 3) == ["mlp.00", "attention.01", "mlp.01"]
    assert select_sublayers(table, 99) == ["mlp.00", "attention.01", "mlp.01", "attention.00"]


def test_ties_are_broken_in_canonical_order_whatever_the_order_of_rows():
    table = scores(mlp_01=0.5, attention_10=0.5, mlp_00=0.7, attention_02=0.5)
    expected = ["mlp.00", "attention.02", "attention.10", "mlp.01"]
    for seed in range(5):
        assert select_sublayers(table.sample(frac=1, random_state=seed), 4) == expected


def test_nothing_scored_selects_nothing():
    assert select_sublayers(scores(mlp_00=float("nan")), 3) == []
    assert select_sublayers(scores(mlp_00=1.0).iloc[:0], 3) == []


def test_selecting_none_is_an_error():
    with pytest.raises(InputError, match=r"^l_select: 0"):
        select_sublayers(scores(mlp_00=1.0), 0)
