"""What is tried on validation: many strengths, along which all other choices take turns; and spans of blocks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy
import pandas

from llmva.core.progress import progress_bar
from llmva.core.vocabulary import STRICT_RATES
from llmva.judging.examiner import Examiner
from llmva.measures.frontier import on_front
from llmva.measures.metrics import measure, strict_rates
from llmva.steering.base import UNSTEERED, SteeringMethod


def alternating(cells: Sequence[dict], trials: int, *, strongest: float, weakest: float) -> list[dict]:
    """Return the unsteered model, then strengths from the strongest down, `trials` settings in all.

    Strengths are spaced geometrically, and each goes with the next cell. Replies change their decision, and
    soon after break, within a narrow range of strengths: a few strengths crossed with all cells step over it.

    Parameters
    ----------
    cells : sequence of dict
        The other choices; see `in_turn`. A cell's `sign` goes into its strengths and does not stay.
    """
    if trials < 1:
        return []
    settings = [dict(UNSTEERED)]
    for number, size in enumerate(numpy.geomspace(strongest, weakest, trials - 1).round(4).tolist()):
        cell = dict(cells[number % len(cells)])
        sign = cell.pop("sign", 1)
        settings.append({**cell, "strength": sign * size})
    return settings


def in_turn(quick: Sequence[dict], slow: Sequence[dict]) -> list[dict]:
    """Return all pairs of two choices in such an order that neighbours differ in both, as far as can be."""
    return [
        {**choice, **slow[(row + column) % len(slow)]}
        for row in range(len(slow))
        for column, choice in enumerate(quick)
    ]


def blocks_of(span: tuple[float, float], depth: int) -> range:
    """Return the blocks from one share of the depth up to another, at least one."""
    # Halves go up: rounding to even would make two spans of a model of six blocks one.
    first, end = (int(share * depth + 0.5) for share in span)
    first = min(first, depth - 1)
    return range(first, max(end, first + 1))


def distinct_spans(spans: Mapping[str, tuple[float, float]], depth: int) -> dict[str, range]:
    """Return the blocks of each span; in a shallow model some spans are equal, and the first of these stays."""
    distinct: dict[str, range] = {}
    for name, span in spans.items():
        if (blocks := blocks_of(span, depth)) not in distinct.values():
            distinct[name] = blocks
    return distinct


def best_threshold(scores: numpy.ndarray, quality: Callable[[numpy.ndarray], numpy.ndarray]) -> tuple[float, float]:
    """Return the threshold that separates rows best, half-way between two neighbouring scores, and how good it is.

    Parameters
    ----------
    scores : ndarray, shape (n,)
    quality : callable
        From the rows below each threshold, (thresholds, n) of bool, to how good each is, (thresholds,). Of
        equally good ones the middle one is taken.
    """
    ordered = numpy.unique(scores.astype(numpy.float64))
    thresholds = (ordered[1:] + ordered[:-1]) / 2 if len(ordered) > 1 else ordered
    values = quality(scores < thresholds[:, None])
    winners = numpy.flatnonzero(values >= values.max() - 1e-9)
    return float(thresholds[winners[len(winners) // 2]]), float(values.max())


@dataclass(frozen=True)
class Tuned:
    """The outcome of tuning.

    Attributes
    ----------
    setting : dict
        The best setting; the earliest on a tie.
    variants : dict of str to dict
        The best setting of each variant, where the method has several.
    trials : DataFrame
        One row per trial: its setting and its validation metrics.
    front : list of dict
        The settings that no other one beats in both failures, in the order in which they were tried.
    """

    setting: dict
    variants: dict[str, dict]
    trials: pandas.DataFrame
    front: list[dict]


def tune(
    method: SteeringMethod,
    examiner: Examiner,
    validation: pandas.DataFrame,
    *,
    trials: int,
    progress: str | None = None,
) -> Tuned:
    """Try a method's settings on validation prompts and keep the one with the highest strict F1."""
    settings = method.search_space(trials)
    rows = []
    for setting in progress_bar(progress, settings):
        with method.applied(examiner.chat_model, setting):
            examined = examiner.examine(validation)
        rows.append({**setting, **measure(examined.rows), **strict_rates(examined.rows)})
    table = pandas.DataFrame(rows)
    # A stable order, so that the earliest comes first on a tie.
    best_first = [settings[index] for index in numpy.argsort(-table["strict_f1"].fillna(-1), kind="stable")]
    variants = dict.fromkeys(setting["variant"] for setting in settings if "variant" in setting)
    best_of = {name: next(setting for setting in best_first if setting.get("variant") == name) for name in variants}
    unbeaten = on_front(table[list(STRICT_RATES)].to_numpy())
    front = [setting for setting, kept in zip(settings, unbeaten, strict=True) if kept]
    return Tuned(best_first[0], best_of, table, front)
