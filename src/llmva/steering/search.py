"""What is tried on validation: many strengths, along which all other choices take turns; and spans of blocks."""

from collections.abc import Mapping, Sequence

import numpy

from llmva.steering.base import UNSTEERED


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


def unsteered(variants: Sequence[str] = ("",)) -> list[dict]:
    """Return all that there is to try where nothing could be fitted: the unsteered model, once for each variant."""
    return [{"variant": variant, **UNSTEERED} if variant else dict(UNSTEERED) for variant in variants]


def alternating_variants(
    cells: Mapping[str, Sequence[dict]], trials: int, *, strongest: float, weakest: float
) -> list[dict]:
    """Return the same for each variant of a method, with its name as `variant`; they share the trials.

    Parameters
    ----------
    cells : mapping of str to sequence of dict
        By variant; the name "" stands for a method without variants, and is left out.
    """
    settings = []
    for place, (variant, own) in enumerate(cells.items()):
        share = trials // len(cells) + (place < trials % len(cells))
        tried = alternating(own, share, strongest=strongest, weakest=weakest)
        settings += [{"variant": variant, **setting} if variant else setting for setting in tried]
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
    found: dict[str, range] = {}
    for name, span in spans.items():
        if blocks_of(span, depth) not in found.values():
            found[name] = blocks_of(span, depth)
    return found
