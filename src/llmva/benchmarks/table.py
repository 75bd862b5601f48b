"""All benchmarks in one table, `tables/performance.csv`."""

import math
import platform
from collections.abc import Callable, Iterator

import pandas
import torch

from llmva import paths
from llmva.benchmarks.generation import benchmark_capture, benchmark_edited, benchmark_hooks
from llmva.benchmarks.gpu import benchmark_gpu, machine_here, rows_of
from llmva.benchmarks.loop import benchmark_loop
from llmva.benchmarks.memory import benchmark_memory
from llmva.benchmarks.solver import benchmark_solver
from llmva.loops import align_r, read_loop
from llmva.params import load_shapes
from llmva.progress import progress_bar
from llmva.shapes import Shape
from llmva.study import Study

DIMENSION = 4096
# How the features' mean compares with their deviation, and whether two dimensions are massive.
FEATURES = {"mean 2 times the deviation": (2, False), "mean 10 times": (10, False), "two massive dimensions": (2, True)}
COLUMNS = ["benchmark", "setting", "ratio", "goal", "met", "runs", "machine"]


def run_benchmarks(study: Study, runs: int) -> pandas.DataFrame:
    """Run every benchmark, two ways in one run each.

    Parameters
    ----------
    study : Study
        Whose model and prompts are used; its loops must have run. The SVM samples are as large as its own:
        one iteration's, and the whole training split.
    runs : int
        Of each benchmark, or three times as many where each is short; a row says how many, and holds their median.

    Returns
    -------
    DataFrame
        Columns benchmark, setting, ratio, goal, met, runs, machine. Rows of angles hold degrees, those of
        convergence a share.
    """
    machine = _machine()
    rows = [
        dict(zip(COLUMNS, (name, setting, value, goal, _met(value, goal), counted), strict=False))
        for benchmark in progress_bar("benchmarks", (_solvers, _capture, _loop, _serving, _memory, _gpu))
        for name, setting, value, goal, counted in benchmark(study, runs)
    ]
    return pandas.DataFrame(rows).assign(machine=machine)[COLUMNS]


def write_performance(table: pandas.DataFrame) -> None:
    """Write the table; figures to three digits, since more would be noise."""
    rounded = table.assign(ratio=[float(f"{value:.3g}") for value in table["ratio"]])
    paths.write_atomically(paths.TABLES / "performance.csv", rounded.to_csv(index=False, lineterminator="\n"))


Row = tuple[str, str, float, str, int]


def _solvers(study: Study, runs: int) -> Iterator[Row]:
    sizes = {len(study.pool["dataset"].unique()) * study.params.sample_per_dataset: ">=10"}
    sizes[int((study.pool["split"] == "train").sum())] = ">=5"
    for samples, goal in sizes.items():
        for name, (ratio, massive) in FEATURES.items():
            setting = f"n {samples}, d {DIMENSION}, {name}, both labels, against LinearSVC"
            found = benchmark_solver(samples, DIMENSION, ratio=ratio, massive=massive, runs=runs)
            yield "solver, time", setting, found["ratio"], goal, runs
            yield "solver, LinearSVC converged", setting, found["liblinear_converged"], "", runs
            yield "solver, degrees apart", setting, found["degrees_apart"], "", runs
            if found["liblinear_converged"]:
                yield "solver, degrees apart where it converged", setting, found["degrees_converged"], "<0.01", runs


def _capture(study: Study, runs: int) -> Iterator[Row]:
    generation, prompts = study.params.generation, study.validation["prompt"].tolist()
    sizes = {"batch_size": generation.batch_size, "max_new_tokens": generation.max_new_tokens}
    ratio, same = benchmark_capture(study.chat_model, prompts, runs=3 * runs, **sizes)
    setting = f"{study.params.slug}, {len(prompts)} prompts, generation with capture over without"
    yield "capture, time", setting, ratio, "<=1.03", 3 * runs
    yield "capture, same bits as a separate pass", setting, float(same), ">=1", 1


def _loop(study: Study, runs: int) -> Iterator[Row]:
    setting = f"{study.params.slug}, 2 observations, against batch 8, separate capture, LinearSVC, no caches"
    yield "loop, time", setting, benchmark_loop(study, iterations=1, runs=runs), ">=8", runs


def _serving(study: Study, runs: int) -> Iterator[Row]:
    log, choice, _ = read_loop(align_r(study))
    prompts, tokens = study.validation["prompt"].tolist(), study.params.generation.max_new_tokens
    setting = f"{study.params.slug}, {len(prompts)} replies of {tokens} tokens in one batch"
    best = log.at_iteration(choice["best_iteration"])
    sizes = {"runs": 3 * runs, "max_new_tokens": tokens}
    edited = benchmark_edited(study.chat_model, best, prompts, **sizes)
    yield "edited over original, throughput", setting, edited, ">=0.99", 3 * runs
    hooked = benchmark_hooks(study.chat_model, prompts, **sizes)
    yield "no hooks over hooks at every block, throughput", setting, hooked, "", 3 * runs


def _memory(study: Study, runs: int) -> Iterator[Row]:
    setting = "12 random blocks of width 1024, float32, 512 + 128 prompts; two copies of the model"
    yield "memory, peak over weights", setting, benchmark_memory(study.params.model), "", 1


def _gpu(study: Study, runs: int) -> Iterator[Row]:
    setting = "8B-shaped model and guard of random weights, bfloat16, 512 + 200 prompts of 110 tokens, 128 new ones"
    if not torch.cuda.is_available():
        yield "GPU, iteration over the roofline's floor", f"{setting}: no GPU was to be had", float("nan"), "<=4", 0
        return
    shape = Shape(**load_shapes("llama-3.1-8b")["shape"])
    yield from rows_of(benchmark_gpu(shape, machine_here(shape)), setting)


def _met(value: float, goal: str) -> str:
    if not goal or math.isnan(value):
        return ""
    within: dict[str, Callable[[float], bool]] = {
        ">=": lambda limit: value >= limit,
        "<=": lambda limit: value <= limit,
        "<": lambda limit: value < limit,
    }
    sign = goal.rstrip("0123456789.")
    return str(within[sign](float(goal.removeprefix(sign))))


def _machine() -> str:
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else platform.machine()
    return f"{device}, {torch.get_num_threads()} threads"
