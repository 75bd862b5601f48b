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
from llmva.engines import hugging_face
from llmva.judging.examiner import Examination
from llmva.judging.guard import GuardJudge
from llmva.method.iteration import fit_all
from llmva.method.loop import align
from llmva.models.activations import Capture
from llmva.models.reading import read_activations
from llmva.performance.benchmarks.look import fresh_examiner
from llmva.performance.timing import Row, ratio_of_seconds, timed
from llmva.prompts.pools import draw_sample
from llmva.study.study import Study

PLAIN_BATCH = 8
# Looks with empty caches, and looks in a study, which has the original's replies and verdicts already.
FRESH_LOOKS, STUDY_LOOKS = 2, 6


def loop_rows(study: Study, sizes: dict[str, int]) -> Iterator[Row]:
    """Compare looks and the edits between them with the released procedure, with the study's threads and with all.

    More threads help large batches alone. `threads` among the sizes stands for all.
    """
    usual = torch.get_num_threads()
    most, plain = (
        sizes.get("threads", os.cpu_count() or usual),
        "against batch 8, separate capture, LinearSVC, no caches",
    )
    settings = {
        f"{FRESH_LOOKS} observations, empty caches": (FRESH_LOOKS, False, sizes["runs"]),
        # A minute of the plain way: fewer runs tell as much.
        f"{STUDY_LOOKS} observations in a study": (STUDY_LOOKS, True, -(-sizes["runs"] // 2)),
    }
    for threads in sorted({usual, most}):
        for name, (looks, known, runs) in settings.items():
            torch.set_num_threads(threads)
            try:
                ratio = benchmark_loop(study, looks=looks, known=known, runs=runs)
            finally:
                torch.set_num_threads(usual)
            setting = f"{study.params.slug}, {name}, {plain}; torch threads: {threads}"
            yield "loop, time", setting, ratio, ">=8", runs


def benchmark_loop(study: Study, *, looks: int, known: bool, runs: int) -> float:
    """Return how many times longer the plain way takes to look, edit and look again: the median of the runs.

    Ours is `align` with fresh caches, or with those that a study has after its prompts are collected. The plain
    reference is what the method's description asks for, literally: batches of 8, transformers' `generate`, a second
    forward pass for the activations, scikit-learn's LinearSVC, and every response judged anew. Neither checks the
    language of replies.
    """
    log = _align(study, looks, known)[1]
    return ratio_of_seconds(lambda: _align_plainly(study, log, looks), lambda: _align(study, looks, known)[0], runs)


def _align(study: Study, looks: int, known: bool) -> tuple[float, EditLog]:
    examiner = fresh_examiner(study, language=False)
    if known:
        examiner.examine(study.pool)
    settings = study.settings(max(study.params.probe.l_select), looks - 1)
    with tempfile.TemporaryDirectory() as folder:
        seconds, run = timed(lambda: align(examiner, study.pool, settings, folder=Path(folder), upstream=()))
    return seconds, run.log


def _align_plainly(study: Study, log: EditLog, looks: int) -> float:
    def look_and_edit() -> None:
        # The edits are taken from our run, so that both look at the same models.
        with EditedModel(study.chat_model.writers) as edited:
            for iteration in range(looks):
                edited.apply(log.at_iteration(min(iteration, len(log))))
                _observe_plainly(study, iteration)

    return timed(look_and_edit)[0]


def _observe_plainly(study: Study, iteration: int) -> None:
    params = study.params
    sample = draw_sample(study.pool, params.sample_per_dataset, params.seed, iteration)
    prompts = pandas.concat([sample, study.validation], ignore_index=True)
    judge = GuardJudge(study.judge.guard, PLAIN_BATCH, engine=hugging_face.respond)
    options = {"cache": TextCache(None), "batch_size": PLAIN_BATCH, "engine": hugging_face.respond}
    examiner = replace(study.plain_examiner, judge=judge, **options)
    rows = examiner.examine(prompts).rows
    activations = read_activations(
        study.chat_model, prompts["prompt"].tolist(), capture=Capture(), batch_size=PLAIN_BATCH
    )
    fit_all(Examination(rows, activations), study.settings(1, 1, solver="liblinear").observation)
