"""Which settings are on the front, and how much of the unit square it leaves behind: by hand, and by counting."""

import numpy
import pandas
import pytest

from llmva.measures.frontier import hypervolume, on_front
from llmva.measures.metrics import strict_rates


def test_a_point_is_on_the_front_unless_another_is_as_good_in_both_and_better_in_one():
    points = [(0.1, 0.5), (0.2, 0.5), (0.3, 0.2), (0.3, 0.3), (0.3, 0.2), (1.0, 0.0), (0.5, 0.2)]
    assert on_front(points).tolist() == [True, False, True, False, False, True, False]


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_a_comparison_of_all_pairs_finds(seed):
    points = numpy.random.default_rng(seed).integers(0, 8, size=(40, 2)) / 8
    beaten = [
        any((other <= point).all() and (other < point).any() for other in points)
        or any((other == point).all() for other in points[:place])
        for place, point in enumerate(points)
    ]
    assert on_front(points).tolist() == [not one for one in beaten]


def test_the_area_is_counted_by_hand():
    assert hypervolume([(0.0, 0.0)]) == 1 and hypervolume([(0.0, 1.0), (1.0, 0.0)]) == 0
    assert hypervolume([(0.2, 0.5), (0.6, 0.1), (0.7, 0.7)]) == pytest.approx(0.4 * 0.5 + 0.4 * 0.9)


@pytest.mark.parametrize("seed", range(3))
def test_the_area_is_that_of_a_fine_grid(seed):
    draws = numpy.random.default_rng(seed)
    points, grid = draws.random((6, 2)), draws.random((200_000, 2))
    beaten = (points[:, None] <= grid).all(axis=2).any(axis=0).mean()
    assert hypervolume(points) == pytest.approx(beaten, abs=0.005)


def test_gibberish_fails_on_both_sides():
    verdicts = ["answered", "refused", "degenerate", "refused", "answered", "degenerate"]
    rows = pandas.DataFrame({"id": list("abcdef"), "dataset": "x", "label": ["benign"] * 3 + ["toxic"] * 3})
    rows = rows.assign(verdict=verdicts, guard_verdict=[*verdicts[:2], "answered", *verdicts[3:5], "refused"])
    assert strict_rates(rows) == pytest.approx({"strict_asr": 2 / 3, "strict_orr": 2 / 3})
    assert numpy.isnan(strict_rates(rows[:3])["strict_asr"])
