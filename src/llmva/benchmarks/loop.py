"""The alignment loop against the plain way that a description of the method suggests."""

import tempfile
import time
from pathlib import Path

import numpy
import pandas

from llmva.activations import Capture
from llmva.alignment import align
from llmva.edits import EditedModel
from llmva.examination import Examination, Examiner
from llmva.generation import read_activations
from llmva.guard_judge import GuardJudge
from llmva.observation import fit_all
from llmva.progress import progress_bar
from llmva.prompts import draw_sample
from llmva.study import Study
from llmva.verdict_cache import VerdictCache

PLAIN_BATCH = 8


def benchmark_loop(study: Study, *, iterations: int, runs: int) -> float:
    """Return how many times longer the plain way takes for the same iterations: the median of the runs.

    Ours is `align` with fresh caches. The plain reference is what the method's description asks for,
    literally: batches of 8, a second forward pass for the activations, scikit-learn's LinearSVC, and
    every response judged anew.
    """
    return float(numpy.median([_ratio(study, iterations) for _ in progress_bar("loop", range(runs))]))


def _ratio(study: Study, iterations: int) -> float:
    generation = study.params.generation
    examiner = Examiner(
        study.chat_model, study.judge, VerdictCache(None), None, generation.batch_size, generation.max_new_tokens
    )
    l_select = max(study.params.probe.l_select)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = align(examiner, study.pool, study.settings(l_select, iterations), folder=Path(folder), upstream=())
        ours = time.perf_counter() - start
    start = time.perf_counter()
    with EditedModel(study.chat_model.writers) as edited:
        for iteration in range(iterations + 1):
            edited.apply(done.log.at_iteration(iteration))
            _observe_plainly(study, iteration)
    return (time.perf_counter() - start) / ours


def _observe_plainly(study: Study, iteration: int) -> None:
    params = study.params
    sample = draw_sample(study.pool, params.sample_per_dataset, params.seed, iteration)
    prompts = pandas.concat([sample, study.validation], ignore_index=True)
    judge = GuardJudge(study.judge.guard, PLAIN_BATCH)
    longest = params.generation.max_new_tokens
    examiner = Examiner(study.chat_model, judge, VerdictCache(None), None, PLAIN_BATCH, longest)
    rows = examiner.examine(prompts).rows
    activations = read_activations(
        study.chat_model, prompts["prompt"].tolist(), capture=Capture(), batch_size=PLAIN_BATCH
    )
    fit_all(Examination(rows, activations), study.settings(1, 1, solver="liblinear"))
