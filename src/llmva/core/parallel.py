"""The same work on many things at once, with results that do not depend on how many threads there are."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item, Result = TypeVar("Item"), TypeVar("Result")


def map_in_threads(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> dict[Item, Result]:
    """Return what some work gives for each item, in the items' order.

    Linear algebra runs on one thread within each: sums are then added up in the same order whatever `threads` is, and
    the threads do not get in each other's way.
    """
    items = list(items)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(max_workers=threads) as pool:
        return dict(zip(items, pool.map(work, items), strict=True))
