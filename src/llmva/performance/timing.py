"""How long work takes, and two ways in one run: they take turns at going first, and each run gives a ratio."""

import time
from collections.abc import Callable
from typing import TypeVar

import numpy
import torch

Result = TypeVar("Result")
# Of the table of benchmarks: benchmark, setting, value, goal, runs.
Row = tuple[str, str, float, str, int]


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Return the seconds that some work takes, what it left to the GPU included, and its result."""
    start = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def fastest(work: Callable[[], object], runs: int) -> float:
    """Return the seconds of the fastest of some runs, after one to warm up."""
    return min([timed(work)[0] for _ in range(runs + 1)][1:])


def ratio_of_times(slower: Callable[[], object], faster: Callable[[], object], runs: int) -> float:
    """Return how many times longer the first way takes; see `ratio_of_seconds`."""
    return ratio_of_seconds(lambda: timed(slower)[0], lambda: timed(faster)[0], runs)


def ratio_of_seconds(slower: Callable[[], float], faster: Callable[[], float], runs: int) -> float:
    """Return the median of the runs' ratios of two ways that say their seconds, after one run to warm up."""
    slower(), faster()
    ratios = []
    for run in range(runs):
        taken = {way: way() for way in ((slower, faster) if run % 2 == 0 else (faster, slower))}
        ratios.append(taken[slower] / taken[faster])
    return float(numpy.median(ratios))
