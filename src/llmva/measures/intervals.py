"""How sure a number is: 95 % intervals of the metrics, and an exact test between two methods."""

import warnings
from typing import NamedTuple

import numpy
import pandas

from llmva.core.errors import InputError
from llmva.core.provenance import random_generator
from llmva.core.vocabulary import LABELS, PAPER_LOOP
from llmva.measures.metrics import POOLED_METRICS, correct, count_rates, measure

CONFIDENCE = 0.95
BOOTSTRAP_RESAMPLES = 4999


class Interval(NamedTuple):
    """The bounds of a 95 % interval; `fallback` says why it is not the kind it should be (empty: it is)."""

    low: float
    high: float
    fallback: str = ""


def with_intervals(
    rows_by_method: dict[str, pandas.DataFrame], reference: str = PAPER_LOOP, *, seed: int
) -> pandas.DataFrame:
    """Return every metric of every method with its interval and its test against the reference.

    Parameters
    ----------
    rows_by_method : dict of str to DataFrame
        Verdicts of each method (see `metrics.measure`), all on the same ids.
    reference : str
        The method that the others are tested against.
    seed : int
        The study's seed, for the bootstrap.

    Returns
    -------
    DataFrame
        Columns method, dataset, metric, value, n, seed. Beside each metric stand `<metric>_low`
        and `<metric>_high`, and, only where the BCa interval is undefined and the percentile one
        stands in, `<metric>_fallback.<reason>`. Without bounds: `strict_error` of every data set
        (the share of its prompts handled wrongly, degenerate counted as wrong), and, of every
        method but the reference, `reference_only`, `method_only` (prompts that only the one or
        the other handled rightly, strictly) and `mcnemar_p`.

    Raises
    ------
    InputError
        When the reference is missing, or methods answered different prompts.
    """
    if reference not in rows_by_method:
        raise InputError(f"reference: {reference!r} is not among {', '.join(rows_by_method)}; name one of these")
    records = []
    for method, rows in rows_by_method.items():
        records += [(method, *record) for record in _metric_records(rows, seed)]
        if method != reference:
            records += [(method, *record) for record in _test_records(rows_by_method[reference], rows)]
    frame = pandas.DataFrame(records, columns=["method", "dataset", "metric", "value", "n"])
    return frame.assign(seed=seed)


def wilson_interval(count: int, n: int) -> Interval:
    """Return Wilson's score interval of the proportion count / n; nan without a single row."""
    from statsmodels.stats.proportion import proportion_confint

    if n == 0:
        return Interval(numpy.nan, numpy.nan)
    low, high = proportion_confint(count, n, alpha=1 - CONFIDENCE, method="wilson")
    # Rounding leaves 1e-17 where the formula gives 0, and as much below 1.
    return Interval(float(low) if count else 0.0, float(high) if count < n else 1.0)


def bootstrap_interval(rows: pandas.DataFrame, metric: str, *, generator: numpy.random.Generator) -> Interval:
    """Return the BCa bootstrap interval of `f1`, `balanced_accuracy` or `strict_f1`.

    Prompts are resampled within their data set and label, as the study drew them. Where BCa is
    undefined (above all where every resample gives the same value), the
    percentile interval of the same resamples stands in and says so.
    """
    score, strict = POOLED_METRICS[metric]
    strata = _strata(rows, strict)
    if {label for label, _ in strata} != set(LABELS) or min(len(flags) for _, flags in strata) < 2:
        return Interval(numpy.nan, numpy.nan, "too few rows")

    def statistic(*samples, axis=-1):
        parts = {label: [] for label in LABELS}
        for (label, _), sample in zip(strata, samples, strict=True):
            parts[label].append(sample)
        return score(**parts, axis=axis)

    return _bca_or_percentile([flags for _, flags in strata], statistic, generator)


def count_discordant(first: pandas.DataFrame, second: pandas.DataFrame) -> tuple[int, int]:
    """Count the prompts that only the first, and only the second method handled rightly (strictly), joined by id."""
    left, right = correct(first), correct(second)
    apart = left.index.symmetric_difference(right.index)
    if len(apart):
        raise InputError(
            f"verdicts: {len(apart)} ids have one method's verdict only ({apart[0]!r}); judge the same prompts"
        )
    right = right.loc[left.index]
    return int((left & ~right).sum()), int((right & ~left).sum())


def exact_mcnemar(first_only: int, second_only: int) -> float:
    """Return the exact two-sided McNemar p-value of discordant counts; concordant pairs have no part in it."""
    from statsmodels.stats.contingency_tables import mcnemar

    return float(mcnemar([[0, first_only], [second_only, 0]], exact=True).pvalue)


def _metric_records(rows: pandas.DataFrame, seed: int) -> list[tuple]:
    records, values = [], measure(rows)
    for metric, rate in count_rates(rows).iterrows():
        interval = wilson_interval(rate["count"], rate["n"])
        records += _records(metric, rate["dataset"], values[metric], interval, rate["n"])
    for metric in POOLED_METRICS:
        interval = bootstrap_interval(rows, metric, generator=random_generator(seed, "bootstrap", metric))
        records += _records(metric, "all", values[metric], interval, len(rows))
    wrong = rows[["dataset"]].assign(wrong=~correct(rows).to_numpy()).groupby("dataset")["wrong"]
    records += [(dataset, "strict_error", float(group.mean()), len(group)) for dataset, group in wrong]
    return records


def _test_records(reference: pandas.DataFrame, rows: pandas.DataFrame) -> list[tuple]:
    only = count_discordant(reference, rows)
    values = {"reference_only": float(only[0]), "method_only": float(only[1]), "mcnemar_p": exact_mcnemar(*only)}
    return [("all", name, value, len(rows)) for name, value in values.items()]


def _records(metric: str, dataset: str, value: float, interval: Interval, n: int) -> list[tuple]:
    numbers = {metric: value, f"{metric}_low": interval.low, f"{metric}_high": interval.high}
    if interval.fallback:
        numbers[f"{metric}_fallback.{interval.fallback}"] = 1.0
    return [(dataset, name, number, n) for name, number in numbers.items()]


def _strata(rows: pandas.DataFrame, strict: bool) -> list[tuple[str, numpy.ndarray]]:
    flags = rows[["label", "dataset"]].assign(right=correct(rows, strict).to_numpy().astype(float))
    # What stands alone in its set is drawn with the label's largest one: of a single row nothing else can be drawn.
    sizes = flags.groupby(["label", "dataset"])["right"].transform("size")
    largest = flags.groupby("label")["dataset"].agg(lambda names: names.value_counts().index[0])
    flags["dataset"] = flags["dataset"].where(sizes > 1, flags["label"].map(largest))
    # Sorted by the flag, so that an interval does not depend on the order of the rows.
    groups = flags.sort_values("right").groupby(["label", "dataset"])["right"]
    return [(label, group.to_numpy()) for (label, _), group in groups]


def _bca_or_percentile(samples: list[numpy.ndarray], statistic, generator: numpy.random.Generator) -> Interval:
    from scipy.stats import bootstrap

    options = {"vectorized": True, "confidence_level": CONFIDENCE}
    with warnings.catch_warnings():
        # SciPy warns where BCa is undefined; the interval's own `fallback` tells that for good.
        warnings.simplefilter("ignore")
        result = bootstrap(samples, statistic, n_resamples=BOOTSTRAP_RESAMPLES, method="BCa", rng=generator, **options)
        low, high = (float(bound) for bound in result.confidence_interval)
    draws = result.bootstrap_distribution
    constant = numpy.ptp(draws) == 0
    if numpy.isfinite([low, high]).all() and not constant:
        return Interval(low, high)
    low, high = numpy.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high), "constant" if constant else "undefined")
