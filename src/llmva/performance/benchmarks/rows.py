"""The benchmarks by name: each yields rows of `tables/performance.csv`, without the columns that follow from others."""

import os
from collections.abc import Iterator

import torch

from llmva.core.params import load_shapes
from llmva.performance.benchmarks.generation import benchmark_capture, benchmark_edited, benchmark_hooks
from llmva.performance.benchmarks.gpu import benchmark_gpu, machine_here, rows_of
from llmva.performance.benchmarks.loop import benchmark_loop
from llmva.performance.benchmarks.memory import benchmark_memory
from llmva.performance.benchmarks.solver import benchmark_solver
from llmva.performance.sizes import Shape
from llmva.study.loop_variants import read_loop, run_llm_va_r
from llmva.study.study import Study

# How the features' mean compares with their deviation, and whether two dimensions are massive.
FEATURES = {"mean 2 times the deviation": (2, False), "mean 10 times": (10, False), "two massive dimensions": (2, True)}
# Runs of each benchmark, the width of the SVMs' features; blocks of the model that fills the memory, prompts per label.
SIZES = {"runs": 5, "dimension": 4096, "blocks": 12, "prompts": 320}
# Where one run is short, it is repeated so many times as often.
MORE = 3

# Benchmark, setting, value, goal, runs.
Row = tuple[str, str, float, str, int]


def solver_rows(study: Study, sizes: dict[str, int]) -> Iterator[Row]:
    """Compare the SVM solvers, on samples as large as one iteration's and as the whole training split."""
    runs, width = sizes["runs"], sizes["dimension"]
    goals = {len(study.pool["dataset"].unique()) * study.params.sample_per_dataset: ">=10"}
    goals[int((study.pool["split"] == "train").sum())] = ">=5"
    for samples, goal in goals.items():
        for name, (ratio, massive) in FEATURES.items():
            setting = f"n {samples}, d {width}, {name}, both labels, against LinearSVC"
            measured = benchmark_solver(samples, width, ratio=ratio, massive=massive, runs=runs)
            yield "solver, time", setting, measured["ratio"], goal, runs
            yield "solver, exact one converged", setting, measured["newton_converged"], ">=1", runs
            yield "solver, LinearSVC converged", setting, measured["liblinear_converged"], "", runs
            yield "solver, degrees apart", setting, measured["degrees_apart"], "", runs
            if measured["liblinear_converged"]:
                yield "solver, degrees apart where it converged", setting, measured["degrees_converged"], "<0.01", runs


def capture_rows(study: Study, sizes: dict[str, int]) -> Iterator[Row]:
    """Compare generation with capture and without."""
    runs, prompts = MORE * sizes["runs"], study.validation["prompt"].tolist()
    ratio, same = benchmark_capture(study.chat_model, prompts, runs=runs, **study.params.generation.model_dump())
    setting = f"{study.params.slug}, {len(prompts)} prompts, generation with capture over without"
    yield "capture, time", setting, ratio, "<=1.03", runs
    yield "capture, same bits as a separate pass", setting, float(same), ">=1", 1


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


def serving_rows(study: Study, sizes: dict[str, int]) -> Iterator[Row]:
    """Compare the edited model with the original, and a model without hooks with a steered one."""
    loop = read_loop(run_llm_va_r(study))
    prompts, tokens = study.validation["prompt"].tolist(), study.params.generation.max_new_tokens
    setting = f"{study.params.slug}, {len(prompts)} replies of {tokens} tokens in one batch"
    best, runs = loop.log.at_iteration(loop.choice.best_iteration), MORE * sizes["runs"]
    edited = benchmark_edited(study.chat_model, best, prompts, runs=runs, max_new_tokens=tokens)
    yield "edited over original, throughput", setting, edited, ">=0.99", runs
    hooked = benchmark_hooks(study.chat_model, prompts, runs=runs, max_new_tokens=tokens)
    yield "no hooks over hooks at every block, throughput", setting, hooked, "", runs


def memory_rows(study: Study, sizes: dict[str, int]) -> Iterator[Row]:
    """Measure the peak of memory in an iteration."""
    blocks, prompts = sizes["blocks"], 2 * sizes["prompts"]
    setting = f"{blocks} random blocks of width 1024, float32, {prompts} prompts; two copies of the model"
    yield "memory, peak over weights", setting, benchmark_memory(study.params.model, blocks, sizes["prompts"]), "", 1


def gpu_rows(study: Study, sizes: dict[str, int]) -> Iterator[Row]:
    """Set an iteration at the size of a real model against the GPU's roofline; without a GPU, say so."""
    setting = "8B-shaped model and guard of random weights, bfloat16, 512 + 200 prompts of 110 tokens, 128 new ones"
    if not torch.cuda.is_available():
        yield "GPU, iteration over the roofline's floor", f"{setting}: no GPU was to be had", float("nan"), "<=4", 0
        return
    shape = Shape(**load_shapes("llama-3.1-8b")["shape"])
    yield from rows_of(benchmark_gpu(shape, machine_here(shape)), setting)


BENCHMARKS = {
    "solver": solver_rows,
    "capture": capture_rows,
    "loop": loop_rows,
    "serving": serving_rows,
    "memory": memory_rows,
    "gpu": gpu_rows,
}
