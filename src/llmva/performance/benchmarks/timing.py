"""Two ways in one run: they take turns at going first, and each run gives a ratio of its own."""

import time
from collections.abc import Callable

import numpy
import torch


def ratio_of_times(slower: Callable[[], object], faster: Callable[[], object], runs: int) -> float:
    """Return how many times longer the first way takes: the median of the runs' ratios, after one run to warm up."""
    slower(), faster()
    ratios = []
    for run in range(runs):
        ways = (slower, faster) if run % 2 == 0 else (faster, slower)
        taken = {way: seconds(way) for way in ways}
        ratios.append(taken[slower] / taken[faster])
    return float(numpy.median(ratios))


def seconds(work: Callable[[], object]) -> float:
    """Return how long some work takes, what it left to the GPU included."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
