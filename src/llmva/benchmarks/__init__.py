"""What is fast, measured: two ways in one run, taking turns, compared by the median of the ratios."""

from llmva.benchmarks.table import run_benchmarks, write_performance

__all__ = ["run_benchmarks", "write_performance"]
