"""The alignment loop against the plain way that a description of the method suggests."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas
import torch

from llmva.core.text_cache import TextCache
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog
from llmva.judging.examiner import Examination
from llmva.judging.guard import GuardJudge
from llmva.method.iteration import fit_all
from llmva.method.loop import align
from llmva.models.activations import Capture
from llmva.models.reading import read_activations
from llmva.performance.timing import Row, ratio_of_times
from llmva.prompts.pools import draw_sample
from llmva.study.study import Study

PLAIN_BATCH = 8
ITERATIONS = 1


def loop_rows(study: Study, sizes: dict[str, int]) -> Iterator[Row]:
    """Compare two looks and the edit between them with the released procedure, with the study's threads and with all.

    More threads help large batches alone. `threads` among the sizes stands for all.
    """
    runs, usual = sizes["runs"], torch.get_num_threads()
    for threads in sorted({usual, sizes.get("threads", os.cpu_count() or usual)}):
        torch.set_num_threads(threads)
        try:
            ratio = benchmark_loop(study, runs=runs)
        finally:
            torch.set_num_threads(usual)
        setting = f"{study.params.slug}, 2 observations, against batch 8, separate capture, LinearSVC, no caches"
        yield "loop, time", f"{setting}; torch threads: {threads}", ratio, ">=8", runs


def benchmark_loop(study: Study, *, runs: int) -> float:
    """Return how many times longer the plain way takes to look, edit and look again: the median of the runs.

    Ours is `align` with fresh caches. The plain reference is what the method's description asks for,
    literally: batches of 8, a second forward pass for the activations, scikit-learn's LinearSVC, and
    every response judged anew. Neither checks the language of replies.
    """
    log = _align(study)
    return ratio_of_times(lambda: _align_plainly(study, log), lambda: _align(study), runs)


def _align(study: Study) -> EditLog:
    examiner = replace(study.plain_examiner, cache=TextCache(None))
    settings = study.settings(max(study.params.probe.l_select), ITERATIONS)
    with tempfile.TemporaryDirectory() as folder:
        return align(examiner, study.pool, settings, folder=Path(folder), upstream=()).log


def _align_plainly(study: Study, log: EditLog) -> None:
    # The edits are taken from our run, so that both look at the same models.
    with EditedModel(study.chat_model.writers) as edited:
        for iteration in range(ITERATIONS + 1):
            edited.apply(log.at_iteration(iteration))
            _observe_plainly(study, iteration)


def _observe_plainly(study: Study, iteration: int) -> None:
    params = study.params
    sample = draw_sample(study.pool, params.sample_per_dataset, params.seed, iteration)
    prompts = pandas.concat([sample, study.validation], ignore_index=True)
    judge = GuardJudge(study.judge.guard, PLAIN_BATCH)
    examiner = replace(study.plain_examiner, judge=judge, cache=TextCache(None), batch_size=PLAIN_BATCH)
    rows = examiner.examine(prompts).rows
    activations = read_activations(
        study.chat_model, prompts["prompt"].tolist(), capture=Capture(), batch_size=PLAIN_BATCH
    )
    fit_all(Examination(rows, activations), study.settings(1, 1, solver="liblinear").observation)
