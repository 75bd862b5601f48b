"""The same work on many things at once, with results that do not depend on how many threads there are."""

import contextlib
import ctypes
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from threadpoolctl import threadpool_limits

from llmva.core.errors import InputError

Item, Result = TypeVar("Item"), TypeVar("Result")


# How many processes a command may use; Make sets it where it runs one at a time.
PROCESSES = "LLMVA_PROCESSES"


def count_processes() -> int:
    """Return how many processes this one may begin for its work, 1 if it is to do all by itself."""
    named = os.environ.get(PROCESSES, "1")
    if not named.isdecimal():
        raise InputError(f"{PROCESSES}: {named!r} is no number of processes; set it to 1 or more, or unset it")
    return int(named)


def process_pool(processes: int) -> ProcessPoolExecutor:
    """Return a pool of fresh interpreters, since torch's threads do not survive a fork; each ends with this process."""
    begin = partial(_end_with, os.getpid())
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"), initializer=begin)


def map_in_threads(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> dict[Item, Result]:
    """Return what some work gives for each item, in the items' order.

    Linear algebra runs on one thread within each: sums are then added up in the same order whatever `threads` is, and
    the threads do not get in each other's way.
    """
    items = list(items)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(max_workers=threads) as pool:
        return dict(zip(items, pool.map(work, items), strict=True))


def release_memory() -> None:
    """Give free memory back to the system, where the C library can: Make has it keep large blocks, for speed.

    A process that has trained would otherwise hold what that took for as long as it lives.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _end_with(parent: int) -> None:
    """End this process when the one that began it is gone, killed or not."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
