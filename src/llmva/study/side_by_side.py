"""Stages that do not wait for each other, computed by several processes before they are asked for one by one."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from functools import cache, partial

import torch

from llmva.core.parallel import count_processes, process_pool
from llmva.core.params import StudyParams
from llmva.study.study import Study


def compute_ahead(study: Study, stages: Sequence[Callable[[Study], object]]) -> None:
    """Compute stages of a study side by side; whoever asks for them afterwards finds them.

    Nothing is done with one process, the default, or on a GPU, whose memory holds one copy of a model.

    Parameters
    ----------
    stages : sequence of callable
        Functions of a module, of the study alone (or a `partial` of such), the longest first.
    """
    processes = count_processes()
    if processes < 2 or torch.cuda.is_available():
        return
    pending = [_pool(processes).submit(_compute, study.params, stage) for stage in stages]
    # All are waited for, so that one that fails takes none of the others' work with it.
    wait(pending)
    for each in pending:
        each.result()


@cache
def _pool(processes: int) -> ProcessPoolExecutor:
    # Its processes stay for the study's other stages.
    return process_pool(processes, partial(_end_with, os.getpid()))


def _compute(params: StudyParams, stage: Callable[[Study], object]) -> None:
    stage(_study(params.model_dump_json()))


@cache
def _study(params: str) -> Study:
    return Study(StudyParams.model_validate_json(params))


def _end_with(parent: int) -> None:
    """End this process when the one that began it is gone, killed or not."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
