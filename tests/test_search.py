"""Settings to try: the whole budget, one cell after the other, and spans that keep their share of the depth."""

from itertools import pairwise

import numpy
import pytest

from llmva.steering.baselines.scans import Scans
from llmva.steering.residual import ResidualMethod
from llmva.steering.search import alternating, blocks_of, distinct_spans, in_turn

CELLS = [{"span": "late", "sign": 1}, {"span": "all", "sign": -1}, {"span": "early"}]


@pytest.mark.parametrize("trials", [0, 1, 2, 9, 36])
def test_the_budget_is_used_whole_and_cells_take_turns_along_the_strengths(trials):
    settings = alternating(CELLS, trials, strongest=2.0, weakest=0.05)
    assert len(settings) == trials
    assert settings[:1] == [{"strength": 0.0}][:trials]
    for number, setting in enumerate(settings[1:]):
        cell = CELLS[number % 3]
        assert setting["span"] == cell["span"] and numpy.sign(setting["strength"]) == cell.get("sign", 1)
        assert set(setting) == {"span", "strength"}
    if trials > 2:
        sizes = numpy.abs([setting["strength"] for setting in settings[1:]])
        assert sizes[0] == 2.0 and sizes[-1] == 0.05
        ratios = sizes[1:] / sizes[:-1]
        numpy.testing.assert_allclose(ratios, ratios.mean(), rtol=0.01)
    assert CELLS[0] == {"span": "late", "sign": 1}


def test_variants_share_the_budget_and_each_has_an_unsteered_model():
    settings = method_of({"a": CELLS, "b": CELLS[:1]}).search_space(7)
    assert [setting["variant"] for setting in settings] == ["a"] * 4 + ["b"] * 3
    assert settings[0] == {"variant": "a", "strength": 0.0} and settings[4] == {"variant": "b", "strength": 0.0}
    assert method_of({"": CELLS}).search_space(5) == alternating(CELLS, 5, strongest=1.0, weakest=0.1)


def method_of(cells):
    """Return a method that is fitted and has the cells by variant."""

    class Planned(ResidualMethod):
        variants, outcome = tuple(cells), "fitted"
        weakest, strongest = 0.1, 1.0
        _fit = _steered = None

        def _cells(self, variant):
            return cells[variant]

    return Planned()


@pytest.mark.parametrize("quick, slow", [(3, 2), (2, 3), (4, 4), (1, 5)])
def test_pairs_come_once_each_and_neighbours_differ_in_both(quick, slow):
    pairs = in_turn([{"a": number} for number in range(quick)], [{"b": number} for number in range(slow)])
    assert len({(pair["a"], pair["b"]) for pair in pairs}) == len(pairs) == quick * slow
    for row in range(slow):
        for one, other in pairwise(pairs[row * quick : (row + 1) * quick]):
            assert one["a"] != other["a"] and one["b"] != other["b"]


def test_spans_keep_their_share_of_the_depth_and_equal_ones_are_left_out():
    assert distinct_spans(Scans.spans, 32)["published"] == range(10, 20)
    assert distinct_spans(Scans.spans, 2) == {"published": range(1, 2), "all": range(0, 2)}
    assert distinct_spans(Scans.spans, 1) == {"published": range(0, 1)}


@pytest.mark.parametrize("depth", range(1, 33))
@pytest.mark.parametrize("span", [(0.0, 1.0), (0.0, 0.01), (0.99, 1.0), (0.3, 0.6)])
def test_a_span_has_a_block_and_stays_within_the_model(depth, span):
    blocks = blocks_of(span, depth)
    assert len(blocks) >= 1 and blocks.start >= 0 and blocks.stop <= depth
