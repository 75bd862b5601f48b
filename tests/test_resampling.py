"""The hierarchical bootstrap: what is drawn, and that its intervals say what they should."""

import numpy
import pandas
import pytest

from llmva.core.provenance import random_generator
from llmva.measures.metrics import balanced_accuracy, f1_score
from llmva.paper.tables import resampling
from llmva.paper.tables.paper import read_paper_values
from llmva.paper.tables.runs import RATES

TOXIC = numpy.array([True, True, False, False])


def generator(*purpose) -> numpy.random.Generator:
    return random_generator(0, "test", *purpose)


def interval_of_rate(rates, models, n=50, name="interval"):
    """The interval of a single rate over runs."""
    rates = numpy.asarray(rates)[:, None]
    draws = resampling.draw_runs(models, "test", name)
    wrong = draws.draw_wrong(rates, numpy.full(rates.shape, n))
    return draws.interval(wrong[..., 0] / n)


def test_scores_of_counts_are_those_of_the_verdicts():
    random = generator("flags")
    right = [random.random(n) < 0.7 for n in (30, 50, 40, 20)]
    wrong = numpy.array([(~flags).sum() for flags in right])
    counts = numpy.array([len(flags) for flags in right])
    assert resampling.f1_of_counts(wrong, counts, TOXIC) == pytest.approx(f1_score(right[2:], right[:2]))
    expected = balanced_accuracy(right[2:], right[:2])
    assert resampling.balanced_accuracy_of_counts(wrong, counts, TOXIC) == pytest.approx(expected)
    assert resampling.error_rate(wrong, counts, TOXIC) == (wrong[0] + wrong[1]) / 80


def test_the_papers_f1_follows_from_its_rates():
    table = read_paper_values("table2")
    wrong = (50 * table[list(RATES["table2"])]).round().to_numpy()
    found = resampling.f1_of_counts(wrong, numpy.full_like(wrong, 50), TOXIC)
    assert numpy.abs(found - table["f1"]).max() < 6e-5


def test_drawn_runs_are_seeds_of_one_model():
    models = ["a", "b", "a", "a", "c", "b"]
    draws = resampling.draw_runs(models, "test", "runs", resamples=400)
    assert draws.runs.shape == draws.kept.shape == (400, 3, 3)
    names = numpy.array(models)[draws.runs]
    first = names[:, :, 0]
    assert ((names == first[:, :, None]) | ~draws.kept).all()
    sizes = pandas.Series(models).value_counts()
    assert (draws.kept.sum(axis=-1) == sizes.loc[first.ravel()].to_numpy().reshape(first.shape)).all()
    # Every model and every seed of it is drawn about equally often.
    assert pandas.Series(first.ravel()).value_counts(normalize=True).between(0.28, 0.39).all()
    of_a = draws.runs[(first == "a")]
    assert pandas.Series(of_a.ravel()).value_counts(normalize=True).loc[[0, 2, 3]].between(0.28, 0.39).all()


def test_the_mean_is_over_seeds_and_then_over_models():
    kept = numpy.array([[[True] * 3, [True, False, False]]])
    draws = resampling.DrawnRuns(numpy.array(["a", "b"]), numpy.zeros((1, 2, 3), int), kept, generator("unused"))
    values = numpy.array([[[0.1, 0.2, 0.6], [0.7, 9.0, numpy.nan]]])
    assert draws.average(values) == pytest.approx([(0.3 + 0.7) / 2])


def test_one_run_varies_by_its_prompts_alone():
    found = interval_of_rate([0.3], ["a"], n=1000)
    half = 1.96 * numpy.sqrt(0.3 * 0.7 / 1000)
    assert (found.low, found.high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.1 * half)


def test_intervals_cover_the_mean_and_shrink_with_prompts_and_runs():
    rates, models = [0.2, 0.3, 0.25, 0.35], ["a", "a", "b", "b"]
    few, many = interval_of_rate(rates, models), interval_of_rate(rates, models, n=5000)
    assert few.low < many.low < numpy.mean(rates) < many.high < few.high
    more = interval_of_rate(rates * 4, [name + str(copy) for copy in range(4) for name in models])
    assert few.low < more.low < numpy.mean(rates) < more.high < few.high


def test_models_that_differ_widen_the_interval_beyond_their_prompts():
    # Two models at 0.1 and 0.9, without any noise of prompts: both alike are drawn half of the time.
    found = interval_of_rate([0.1, 0.9], ["a", "b"], n=10**6)
    assert (found.low, found.high) == pytest.approx((0.1, 0.9), abs=0.01)
    alone = interval_of_rate([0.1, 0.9], ["a", "a"], n=10**6)
    assert (alone.low, alone.high) == pytest.approx((0.1, 0.9), abs=0.01)


def test_constant_data_give_an_interval_of_width_zero():
    for value in (0.0, 1.0):
        found = interval_of_rate([value] * 4, ["a", "a", "b", "b"])
        assert found.low == found.high == value


def test_intervals_cover_a_planted_mean_about_as_often_as_they_say():
    hits, models = 0, [f"m{number // 3}" for number in range(36)]
    for trial in range(100):
        random = generator("planted", trial)
        true = 0.4 + 0.08 * random.standard_normal(12).repeat(3) + 0.05 * random.standard_normal(36)
        rates = random.binomial(50, true.clip(0, 1)) / 50
        found = interval_of_rate(rates, models, name=f"trial {trial}")
        hits += found.low <= 0.4 <= found.high
    assert 87 <= hits <= 100


def test_draws_depend_on_their_purpose_alone():
    rates, models = [0.2, 0.3], ["a", "b"]
    assert interval_of_rate(rates, models) == interval_of_rate(rates, models)
    assert interval_of_rate(rates, models) != interval_of_rate(rates, models, name="another")
