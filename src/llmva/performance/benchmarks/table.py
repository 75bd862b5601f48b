"""All benchmarks in one table, `tables/performance.csv`; what was measured is measured again when the code changes."""

import math
import operator
import platform
from pathlib import Path

import pandas
import torch

from llmva.core import paths
from llmva.core.provenance import code_digest, digest
from llmva.core.store import Stage, run_stage
from llmva.performance.benchmarks.generation import capture_rows, serving_rows
from llmva.performance.benchmarks.gpu import gpu_rows
from llmva.performance.benchmarks.look import look_rows
from llmva.performance.benchmarks.loop import loop_rows
from llmva.performance.benchmarks.memory import memory_rows
from llmva.performance.benchmarks.replies import reply_rows
from llmva.performance.benchmarks.solver import solver_rows
from llmva.study.study import Study

# Each yields rows of the table, without the columns that follow from others.
BENCHMARKS = {
    "solver": solver_rows,
    "capture": capture_rows,
    "replies": reply_rows,
    "look": look_rows,
    "loop": loop_rows,
    "serving": serving_rows,
    "memory": memory_rows,
    "gpu": gpu_rows,
}
# Runs of each benchmark, the width of the SVMs' features; blocks of the model that fills the memory, prompts per label.
SIZES = {"runs": 5, "dimension": 4096, "blocks": 12, "prompts": 320}
PERFORMANCE_COLUMNS = ["benchmark", "setting", "ratio", "goal", "met", "runs", "machine"]
STAGE = "16_performance"
BENCHMARK_VERSION = 2
COMPARISONS = {">=": operator.ge, "<=": operator.le, "<": operator.lt}


def run_benchmark(study: Study, name: str, sizes: dict[str, int] = SIZES) -> pandas.DataFrame:
    """Run one of `BENCHMARKS`, two ways in one run, or find what this very code took on this machine.

    Parameters
    ----------
    study : Study
        Whose model and prompts are used; its loops must have run.
    sizes : dict of str to int
        `runs` of each, `dimension` of the SVMs' features, `blocks` of the model that fills the memory, and its
        `prompts` per label; `threads`, the most, if not one for each core.

    Returns
    -------
    DataFrame
        Columns benchmark, setting, ratio, goal, met, runs, machine; the ratio is the median of the runs. Rows of
        angles hold degrees, those of convergence a share.
    """
    machine = _machine()

    def compute(folder: Path) -> None:
        rows = [(*row[:4], _met(*row[2:4]), row[4], machine) for row in BENCHMARKS[name](study, sizes)]
        _write(folder / "rows.csv", pandas.DataFrame(rows, columns=PERFORMANCE_COLUMNS))

    parameters = {"machine": machine, "code": code_digest(), "sizes": sizes, **study.identity()}
    stage = run_stage(study.folder / "benchmarks" / name, compute, parameters=parameters, version=BENCHMARK_VERSION)
    return pandas.read_csv(stage / "rows.csv", dtype={"goal": str, "met": str}).fillna({"goal": "", "met": ""})


def write_performance(study: Study, table: pandas.DataFrame) -> Stage:
    """Write `tables/performance.csv`, and mark the study's benchmarks as finished."""
    _write(paths.TABLES / "performance.csv", table)
    parameters = {"rows": digest(table.astype(str).to_numpy().tolist())}
    return run_stage(
        study.folder / STAGE, lambda folder: _write(folder / "performance.csv", table), parameters=parameters
    )


def _write(path: Path, table: pandas.DataFrame) -> None:
    # To three digits, since more would be noise.
    rounded = table.assign(ratio=[float(f"{value:.3g}") for value in table["ratio"]])
    paths.write_atomically(path, rounded.to_csv(index=False, lineterminator="\n"))


def _met(value: float, goal: str) -> str:
    if not goal or math.isnan(value):
        return ""
    sign = goal.rstrip("0123456789.")
    return str(COMPARISONS[sign](value, float(goal.removeprefix(sign))))


def _machine() -> str:
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else platform.machine()
    threads = torch.get_num_threads()
    return f"{device}, {threads} thread{'s' * (threads != 1)}"
