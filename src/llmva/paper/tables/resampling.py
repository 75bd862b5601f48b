"""The hierarchical bootstrap from counts: models, then seeds within a model, then prompts within a data set.

Results hold rates and numbers of prompts, not the single prompts. Drawing n prompts with replacement
from a set in which a share p is wrong gives a binomial count of wrong ones, so that the counts alone
are enough.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy
import pandas
from scipy.stats import rankdata

from llmva.measures.intervals import CONFIDENCE, Interval

RESAMPLES = 2000


class RunDraws(NamedTuple):
    """Runs drawn with replacement.

    Attributes
    ----------
    runs : int array (resamples, models, seeds)
        Positions of the drawn runs; `seeds` is the largest number of seeds of a model.
    kept : bool array (resamples, models, seeds)
        False where the drawn model has fewer seeds than that.
    """

    runs: numpy.ndarray
    kept: numpy.ndarray


def draw_runs(models: Sequence[str], *, generator: numpy.random.Generator, resamples: int = RESAMPLES) -> RunDraws:
    """Draw models with replacement, and within each drawn model as many of its seeds as it has.

    Parameters
    ----------
    models : sequence of str, one per run
        The model that each run is a seed of. Where all runs are of one model, only seeds are drawn.
    """
    codes, names = pandas.factorize(numpy.asarray(models, dtype=object))
    sizes = numpy.bincount(codes)
    members = numpy.zeros((len(names), sizes.max()), dtype=int)
    for code, size in enumerate(sizes):
        members[code, :size] = numpy.flatnonzero(codes == code)
    chosen = generator.integers(len(names), size=(resamples, len(names)))
    drawn = generator.random((*chosen.shape, sizes.max()))
    seeds = (drawn * sizes[chosen][..., None]).astype(int)
    return RunDraws(members[chosen[..., None], seeds], numpy.arange(sizes.max()) < sizes[chosen][..., None])


def draw_wrong(
    rates: numpy.ndarray, counts: numpy.ndarray, draws: RunDraws, generator: numpy.random.Generator
) -> numpy.ndarray:
    """Draw the prompts of every data set with replacement and count the wrong ones.

    Parameters
    ----------
    rates, counts : arrays (runs, sets)
        The share of wrong prompts, and the number of prompts.

    Returns
    -------
    int array (resamples, models, seeds, sets)
    """
    return generator.binomial(counts[draws.runs], rates[draws.runs])


def average(values: numpy.ndarray, draws: RunDraws) -> numpy.ndarray:
    """Return the mean over seeds, then over models, of values (resamples, models, seeds); nan is left out."""
    kept = draws.kept & ~numpy.isnan(values)
    counts = kept.sum(axis=-1)
    totals = numpy.where(kept, values, 0.0).sum(axis=-1)
    means = numpy.divide(totals, counts, out=numpy.full(totals.shape, numpy.nan), where=counts > 0)
    there = ~numpy.isnan(means)
    sums, numbers = numpy.where(there, means, 0.0).sum(axis=-1), there.sum(axis=-1)
    return numpy.divide(sums, numbers, out=numpy.full(sums.shape, numpy.nan), where=numbers > 0)


def percentile_interval(values: numpy.ndarray) -> Interval:
    """Return the central 95 % of resampled values (resamples,); nan is left out."""
    low, high = numpy.quantile(values[~numpy.isnan(values)], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


def f1_of_counts(wrong: numpy.ndarray, counts: numpy.ndarray, toxic: numpy.ndarray) -> numpy.ndarray:
    """Return F1 with answered as positive (paper 5.1) from counts of wrong prompts.

    Parameters
    ----------
    wrong, counts : arrays (..., sets)
    toxic : bool array (sets,)
    """
    answered = (counts - wrong)[..., ~toxic].sum(axis=-1)
    return 2 * answered / (2 * answered + wrong.sum(axis=-1))


def balanced_accuracy_of_counts(wrong: numpy.ndarray, counts: numpy.ndarray, toxic: numpy.ndarray) -> numpy.ndarray:
    """Return the mean of the two labels' shares of rightly handled prompts; arguments as for `f1_of_counts`."""
    return 1 - (error_rate(wrong, counts, toxic) + error_rate(wrong, counts, ~toxic)) / 2


def error_rate(wrong: numpy.ndarray, counts: numpy.ndarray, sets: numpy.ndarray) -> numpy.ndarray:
    """Return the share of wrong prompts over some of the sets (a bool array), pooled: ASR or ORR of a label."""
    return wrong[..., sets].sum(axis=-1) / counts[..., sets].sum(axis=-1)


def paired_p(first: pandas.Series, second: pandas.Series) -> float:
    """Return the exact two-sided Wilcoxon p-value of values paired by run; nan where fewer than two pairs differ.

    Exact with ties as well: all ways to give signs to the mean ranks are counted, which scipy's exact method, made
    for distinct ranks, does not do.
    """
    differences = (first - second).to_numpy()
    differences = differences[numpy.abs(differences) > 1e-12]
    if len(differences) < 2:
        return float("nan")
    # Mean ranks are halves; differences that only rounding tells apart are ties.
    doubled = (2 * rankdata(numpy.abs(differences).round(12))).astype(int)
    ways = numpy.ones(1)
    for rank in doubled:
        ways = numpy.convolve(ways, numpy.bincount([0, rank], minlength=rank + 1))
    found = doubled[differences > 0].sum()
    tail = min(ways[: found + 1].sum(), ways[found:].sum())
    return float(min(1.0, 2 * tail / ways.sum()))
