"""The hierarchical bootstrap from counts: models, then seeds within a model, then prompts within a data set.

Results hold rates and numbers of prompts, not the single prompts. Drawing n prompts with replacement
from a set in which a share p is wrong gives a binomial count of wrong ones, so that the counts alone
are enough.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import pandas
from scipy.stats import rankdata

from llmva.core.provenance import random_generator
from llmva.measures.intervals import CONFIDENCE, Interval

RESAMPLES = 2000
# Draws of a table do not depend on the seed of a study: it stands for several.
SEED = 0
# A bootstrap over fewer runs is far too narrow.
MIN_RUNS = 6


@dataclass(frozen=True)
class DrawnRuns:
    """Runs drawn with replacement.

    Attributes
    ----------
    models : array of str (runs,)
        The model that each run is a seed of.
    runs : int array (resamples, models, seeds)
        Positions of the drawn runs; `seeds` is the largest number of seeds of a model.
    kept : bool array (resamples, models, seeds)
        False where the drawn model has fewer seeds than that.
    generator : Generator
        What draws their prompts next.
    """

    models: numpy.ndarray
    runs: numpy.ndarray
    kept: numpy.ndarray
    generator: numpy.random.Generator

    def draw_wrong(self, rates: numpy.ndarray, counts: numpy.ndarray) -> numpy.ndarray:
        """Draw the prompts of every data set with replacement and count the wrong ones.

        From shares of wrong prompts and numbers of prompts, (runs, sets); returns (resamples, models, seeds, sets).
        """
        return self.generator.binomial(counts[self.runs], rates[self.runs])

    def mean(self, values: pandas.Series | pandas.DataFrame) -> float | pandas.Series:
        """Return the mean over seeds, then over models, of one value (or row) per run, as they are."""
        return values.groupby(self.models).mean().mean()

    def average(self, values: numpy.ndarray) -> numpy.ndarray:
        """Return the means of every draw, over seeds, then models: (resamples, models, seeds) to (resamples,)."""
        kept = numpy.ma.array(values, mask=~self.kept | numpy.isnan(values))
        return kept.mean(axis=-1).mean(axis=-1).filled(numpy.nan)

    def interval(self, values: numpy.ndarray) -> Interval:
        """Return the 95 % interval of the mean of values (resamples, models, seeds)."""
        return percentile_interval(self.average(values))


def draw_runs(models: Sequence[str], *purpose: str, resamples: int = RESAMPLES) -> DrawnRuns:
    """Draw models with replacement, and within each drawn model as many of its seeds as it has.

    `models` names the model that each run is a seed of; where it is one and the same, only seeds are drawn.
    The same `purpose` gives the same draws.
    """
    generator = random_generator(SEED, "hierarchical bootstrap", *purpose)
    models = numpy.asarray(models, dtype=object)
    codes, names = pandas.factorize(models)
    sizes = numpy.bincount(codes)
    members = numpy.zeros((len(names), sizes.max()), dtype=int)
    for code, size in enumerate(sizes):
        members[code, :size] = numpy.flatnonzero(codes == code)
    chosen = generator.integers(len(names), size=(resamples, len(names)))
    drawn = generator.random((*chosen.shape, sizes.max()))
    seeds = (drawn * sizes[chosen][..., None]).astype(int)
    kept = numpy.arange(sizes.max()) < sizes[chosen][..., None]
    return DrawnRuns(models, members[chosen[..., None], seeds], kept, generator)


def percentile_interval(values: numpy.ndarray) -> Interval:
    """Return the central 95 % of resampled values (resamples,); nan is left out."""
    low, high = numpy.quantile(values[~numpy.isnan(values)], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


def f1_of_counts(wrong: numpy.ndarray, counts: numpy.ndarray, toxic: numpy.ndarray) -> numpy.ndarray:
    """Return F1 with answered as positive (paper 5.1), from numbers of wrong and of all prompts (..., sets)."""
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
    positive = doubled[differences > 0].sum()
    tail = min(ways[: positive + 1].sum(), ways[positive:].sum())
    return float(min(1.0, 2 * tail / ways.sum()))
