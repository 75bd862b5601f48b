"""Stages that do not wait for each other, computed by several processes before they are asked for one by one."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from functools import cache
from typing import Protocol

import torch

from llmva.core.parallel import count_processes, process_pool, release_memory
from llmva.core.strict import StrictModel
from llmva.engines.memory import ReplyMemory


class AnyStudy(Protocol):
    """A study that another process can take up from its parameters alone, unless its model is held in memory."""

    params: StrictModel
    replies: ReplyMemory
    held: object | None


def compute_ahead(study: AnyStudy, stages: Sequence[Callable[[AnyStudy], object]]) -> None:
    """Compute stages of a study side by side; whoever asks for them afterwards finds them.

    Nothing is done with one process, the default, on a GPU, whose memory holds one copy of a model, or for a model
    that only this process has.

    Parameters
    ----------
    stages : sequence of callable
        Functions of a module, of the study alone (or a `partial` of such), the longest first.
    """
    if not _several() or study.held is not None:
        return
    pending = [_pool().submit(_compute, type(study), study.params, stage) for stage in stages]
    # All are waited for, so that one that fails takes none of the others' work with it.
    wait(pending)
    for each in pending:
        study.replies.count(*each.result())


def begin_processes() -> None:
    """Begin the processes that `compute_ahead` will use, without waiting for them: they import for seconds."""
    if _several():
        for _ in range(count_processes()):
            _pool().submit(os.getpid)


def _several() -> bool:
    return count_processes() > 1 and not torch.cuda.is_available()


@cache
def _pool() -> ProcessPoolExecutor:
    # Its processes stay for the study's other stages.
    return process_pool(count_processes())


def _compute(kind: type[AnyStudy], params: StrictModel, stage: Callable[[AnyStudy], object]) -> tuple[int, int]:
    """Compute a stage and return how many prompts were asked for it, and how many of them answered."""
    study = _study(kind, type(params), params.model_dump_json())
    asked, answered = study.replies.asked, study.replies.answered
    stage(study)
    release_memory()
    return study.replies.asked - asked, study.replies.answered - answered


@cache
def _study(kind: type[AnyStudy], params: type[StrictModel], values: str) -> AnyStudy:
    return kind(params.model_validate_json(values))
