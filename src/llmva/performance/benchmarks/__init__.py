"""What is fast, measured: two ways in one run, taking turns, compared by the median of the ratios."""

from llmva.performance.benchmarks.table import SIZES, run_benchmark, write_performance

__all__ = ["SIZES", "run_benchmark", "write_performance"]
