"""Threads: the same results in the same order, to the bit, however many there are."""

import ctypes
import os
import subprocess
import sys
import threading
import time

import numpy
import pytest

from llmva.core.errors import InputError
from llmva.core.parallel import PROCESSES, count_processes, map_in_threads


def test_results_come_in_the_order_of_the_items_whoever_is_done_first():
    delays = {"slow": 0.05, "middle": 0.02, "fast": 0.0}

    def work(name):
        time.sleep(delays[name])
        return name.upper()

    assert list(map_in_threads(work, delays, 3).items()) == [("slow", "SLOW"), ("middle", "MIDDLE"), ("fast", "FAST")]


def test_several_threads_work_at_once():
    meeting = threading.Barrier(2, timeout=20)
    # Neither could pass alone.
    assert sorted(map_in_threads(lambda _: meeting.wait(), ["a", "b"], 2).values()) == [0, 1]


def test_sums_do_not_depend_on_the_number_of_threads():
    matrices = {seed: numpy.random.default_rng(seed).standard_normal((300, 700)) for seed in range(4)}

    def work(seed):
        return matrices[seed] @ matrices[seed].T

    one, four = map_in_threads(work, matrices, 1), map_in_threads(work, matrices, 4)
    assert all(numpy.array_equal(one[seed], four[seed]) for seed in matrices)


def test_an_error_in_one_is_raised():
    with pytest.raises(ZeroDivisionError):
        map_in_threads(lambda number: 1 / number, [1, 0], 2)


def test_a_number_of_processes_that_is_none_is_refused_in_a_line(monkeypatch):
    monkeypatch.delenv(PROCESSES, raising=False)
    assert count_processes() == 1
    monkeypatch.setenv(PROCESSES, "all")
    with pytest.raises(InputError, match="LLMVA_PROCESSES: 'all' is no number"):
        count_processes()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library than glibc")
def test_free_memory_goes_back_to_the_system():
    """Of a process that keeps large blocks, as Make has them, and trains."""
    code = (
        "import gc, psutil, torch\n"
        "from llmva.core.parallel import release_memory\n"
        "held = [torch.ones(2**22) for _ in range(24)]\n"
        "last = torch.ones(8)\n"
        "del held; gc.collect()\n"
        "before = psutil.Process().memory_info().rss\n"
        "release_memory()\n"
        "print((before - psutil.Process().memory_info().rss) / 2**20)\n"
    )
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_MMAP_MAX_": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    # Of 384 MiB.
    assert float(done.stdout) > 200
