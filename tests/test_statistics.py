"""Intervals and tests against textbook numbers and planted differences."""

import numpy
import pandas
import pytest
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar

from llmva.core.errors import InputError
from llmva.core.provenance import random_generator
from llmva.core.vocabulary import SAFETY_SETS
from llmva.measures.intervals import (
    bootstrap_interval,
    count_discordant,
    exact_mcnemar,
    wilson_interval,
    with_intervals,
)
from llmva.measures.metrics import measure


def verdicts(wrong: tuple[int, int, int, int], n: int = 50) -> pandas.DataFrame:
    records = []
    for (dataset, label), count in zip(SAFETY_SETS.items(), wrong, strict=True):
        pair = ("refused", "answered") if label == "benign" else ("answered", "refused")
        for number in range(n):
            verdict = pair[number >= count]
            records.append((f"{dataset}-{number:04d}", dataset, label, verdict, verdict))
    return pandas.DataFrame(records, columns=["id", "dataset", "label", "verdict", "guard_verdict"])


def interval(rows: pandas.DataFrame, metric: str, seed: int = 0):
    return bootstrap_interval(rows, metric, generator=random_generator(seed, "bootstrap", metric))


def value_of(frame: pandas.DataFrame, method: str, metric: str) -> float:
    return frame.set_index(["method", "metric"])["value"].loc[(method, metric)]


def test_wilson_matches_the_formula():
    # Wilson (1927) for 10 of 50, z = 1.959964: (0.2 + z^2/100 -+ z sqrt(.2*.8/50 + z^2/10000)) / (1 + z^2/50).
    z = 1.959963984540054
    centre, spread = 0.2 + z * z / 100, z * numpy.sqrt(0.2 * 0.8 / 50 + z * z / 10000)
    expected = ((centre - spread) / (1 + z * z / 50), (centre + spread) / (1 + z * z / 50))
    assert wilson_interval(10, 50)[:2] == pytest.approx(expected)


def test_wilson_is_not_empty_at_the_ends():
    assert wilson_interval(0, 50).low == 0
    assert wilson_interval(0, 50).high == pytest.approx(0.0713, abs=5e-4)
    assert wilson_interval(50, 50).high == 1
    assert numpy.isnan(wilson_interval(0, 0).low)


def test_bootstrap_is_near_the_normal_interval_for_many_rows():
    rows = verdicts((100, 200, 120, 40), n=400)
    shares = numpy.array([100, 200, 120, 40]) / 400
    # Each set's share has variance p(1-p)/n, and each weighs a quarter.
    half = 1.96 * numpy.sqrt((shares * (1 - shares) / 400).sum()) / 4
    value = 1 - shares.mean()
    found = interval(rows, "balanced_accuracy")
    assert found.low == pytest.approx(value - half, abs=0.15 * half)
    assert found.high == pytest.approx(value + half, abs=0.15 * half)
    assert found.fallback == ""


@pytest.mark.parametrize("metric", ["f1", "balanced_accuracy", "strict_f1"])
def test_bootstrap_covers_the_value_and_narrows_with_rows(metric):
    few, many = verdicts((10, 2, 20, 5)), verdicts((80, 16, 160, 40), n=400)
    wide, narrow = interval(few, metric), interval(many, metric)
    value = measure(few)[metric]
    assert measure(many)[metric] == pytest.approx(value)
    assert wide.low < narrow.low < value < narrow.high < wide.high


def test_bootstrap_resamples_within_data_sets():
    # Two sets all wrong, two all right: nothing varies within a set, much would vary over the pool.
    found = interval(verdicts((50, 0, 50, 0)), "f1")
    assert found.low == found.high == pytest.approx(0.5)
    assert found.fallback == "constant"


def test_bootstrap_depends_on_the_seed_and_not_on_the_order_of_rows():
    rows = verdicts((10, 2, 20, 5))
    assert interval(rows, "f1") == interval(rows.sample(frac=1, random_state=1), "f1")
    assert interval(rows, "f1") != interval(rows, "f1", seed=1)


def test_bootstrap_without_rows_to_resample_says_so():
    found = interval(verdicts((0, 0, 0, 0), n=1).drop_duplicates("label"), "f1")
    assert numpy.isnan(found.low)
    assert found.fallback == "too few rows"


def test_a_row_that_is_alone_in_its_set_is_drawn_with_the_labels_largest_one():
    rows = verdicts((10, 2, 20, 5))
    alone = rows.assign(dataset=rows["dataset"].where(rows.index != rows.index[0], "another"))
    found = interval(alone, "f1")
    assert found.low < found.high and interval(rows, "f1") == pytest.approx(found, abs=0.03)


def compare_methods(first, second):
    return exact_mcnemar(*count_discordant(first, second))


def test_mcnemar_counts_discordant_prompts_only():
    # 9 prompts right in the first only, 1 in the second only: p = 2 (C(10,0) + C(10,1)) / 2^10.
    first, second = verdicts((1, 0, 0, 0)), verdicts((0, 0, 0, 9))
    assert compare_methods(first, second) == pytest.approx(22 / 1024)
    assert compare_methods(first, first) == 1
    assert count_discordant(first, second) == (9, 1)
    assert count_discordant(second, first) == (1, 9)


@pytest.mark.parametrize(("first_only", "second_only"), [(0, 0), (3, 3), (9, 1), (1, 9), (140, 85)])
def test_mcnemar_is_the_sign_test_whatever_the_concordant_pairs(first_only, second_only):
    found = exact_mcnemar(first_only, second_only)
    pairs = first_only + second_only
    assert found == pytest.approx(binomtest(first_only, pairs).pvalue if pairs else 1.0)
    assert found == mcnemar([[500, first_only], [second_only, 70]], exact=True).pvalue


def test_mcnemar_joins_by_id_and_is_strict():
    first, second = verdicts((1, 0, 0, 0)), verdicts((0, 0, 0, 9))
    shuffled = second.sample(frac=1, random_state=3)
    assert compare_methods(first, shuffled) == compare_methods(first, second)
    gibberish = first.assign(verdict="degenerate")
    assert compare_methods(first, gibberish) < 1e-50


def test_methods_on_different_prompts_are_refused():
    rows = verdicts((1, 0, 0, 0))
    with pytest.raises(InputError, match="'nq-0049'"):
        compare_methods(rows, rows[rows["id"] != "nq-0049"])


def test_every_metric_carries_its_interval_and_n():
    methods = {"LLM-VA": verdicts((0, 0, 0, 9)), "Original": verdicts((40, 10, 30, 3))}
    frame = with_intervals(methods, seed=0)
    assert list(frame.columns) == ["method", "dataset", "metric", "value", "n", "seed"]
    assert not frame.duplicated(["method", "dataset", "metric"]).any()
    for method, rows in methods.items():
        for metric, value in measure(rows).items():
            assert value_of(frame, method, metric) == value
            low, high = (value_of(frame, method, f"{metric}_{end}") for end in ("low", "high"))
            assert 0 <= low <= value <= high <= 1
    sets = frame.set_index(["method", "metric"])
    assert sets.loc[("LLM-VA", "nq_orr_high"), ["dataset", "n"]].to_list() == ["nq", 50]
    assert sets.loc[("LLM-VA", "f1"), ["dataset", "n"]].to_list() == ["all", 200]
    assert value_of(frame, "Original", "mcnemar_p") == compare_methods(*methods.values())
    for metric in ("mcnemar_p", "reference_only", "method_only"):
        assert ("LLM-VA", metric) not in sets.index
    pandas.testing.assert_frame_equal(frame, with_intervals(methods, seed=0))


def test_every_data_set_carries_its_strict_error():
    rows = verdicts((3, 0, 10, 1))
    rows.loc[rows["id"].isin(["nq-0048", "nq-0049"]), "verdict"] = "degenerate"
    frame = with_intervals({"LLM-VA": rows}, seed=0)
    strict = frame[frame["metric"] == "strict_error"].set_index("dataset")
    assert strict["value"].to_dict() == {"seval_attack": 0.06, "seval_risk": 0.0, "orfuzzset": 0.2, "nq": 0.06}
    assert strict["n"].to_list() == [50] * 4
    assert value_of(frame, "LLM-VA", "nq_orr") == 0.02


def test_the_test_stands_beside_its_counts():
    methods = {"LLM-VA": verdicts((1, 0, 0, 0)), "A": verdicts((0, 0, 0, 9)), "B": verdicts((1, 0, 0, 0))}
    frame = with_intervals(methods, seed=0)
    assert [value_of(frame, "A", name) for name in ("reference_only", "method_only")] == [9, 1]
    assert value_of(frame, "A", "mcnemar_p") == pytest.approx(22 / 1024)
    assert [value_of(frame, "B", name) for name in ("reference_only", "method_only", "mcnemar_p")] == [0, 0, 1]
    other = with_intervals(methods, "A", seed=0)
    assert [value_of(other, "LLM-VA", name) for name in ("reference_only", "method_only")] == [1, 9]


def test_a_fallback_is_recorded_with_its_reason():
    frame = with_intervals({"LLM-VA": verdicts((5, 5, 5, 5)), "Perfect": verdicts((0, 0, 0, 0))}, seed=0)
    fallbacks = frame[frame["metric"].str.contains("_fallback")]
    assert set(fallbacks["method"]) == {"Perfect"}
    names = ("f1", "balanced_accuracy", "strict_f1")
    assert set(fallbacks["metric"]) == {f"{name}_fallback.constant" for name in names}


def test_a_missing_reference_is_named():
    with pytest.raises(InputError, match="'LLM-VA' is not among Original"):
        with_intervals({"Original": verdicts((0, 0, 0, 0))}, seed=0)
