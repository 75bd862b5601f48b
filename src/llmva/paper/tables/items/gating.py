"""Two-sided gating beside the weight edit and both together: where it is better, and where it is not."""

import numpy
import pandas

from llmva.core.errors import InputError
from llmva.core.results import remake
from llmva.core.vocabulary import BOTH, ORIGINAL, OUR_LOOP, PAPER_LOOP, TWO_SIDED
from llmva.paper.names import name_models
from llmva.paper.tables import resampling
from llmva.paper.tables.items.llm_va_r import summarize
from llmva.paper.tables.items.utility import read_tasks
from llmva.paper.tables.layout import WORDS, Block, Frames, Table, describe_intervals, read_columns
from llmva.paper.tables.runs import read_runs

COMPARED_METHODS = (ORIGINAL, "Fine-tuning", PAPER_LOOP, TWO_SIDED, OUR_LOOP, BOTH)
# From a measure to the item whose strict F1 it is.
STRICT_F1 = {"test": "table2", "unseen": "table4", "attacks": "attacks"}


def build_gating(results: Frames) -> Frames:
    """Return one row per measure and method: mean, interval, SD, worst, and p of LLM-VA-R against it.

    Means, intervals and tests are those of `build_ridge`, paired by run; `above` is the number of runs in which the
    row is above LLM-VA-R.
    """
    wide = {name: _by_method(read_runs(results[item], item)["strict_f1"]) for name, item in STRICT_F1.items()}
    wide["kept"] = _by_method(read_tasks(results["utility"])["kept"].mean(axis=1))
    runs = wide["test"].index
    draws = resampling.draw_runs(runs.map(name_models(runs)), "gating")
    table = []
    for measure, values in wide.items():
        for method in COMPARED_METHODS:
            above = int((values[method] > values[OUR_LOOP]).sum())
            numbers = summarize(values.loc[runs], method, draws)
            table.append({"measure": measure, "method": method, **numbers, "above": above, "runs": len(runs)})
    frame = pandas.DataFrame(table)
    if len(runs) < resampling.MIN_RUNS:
        frame[["mean_low", "mean_high"]] = numpy.nan
    return {"": frame.drop(columns="p_paper")}


def _by_method(values: pandas.Series) -> pandas.DataFrame:
    wide = values.unstack("method").reindex(columns=list(COMPARED_METHODS))
    for method in wide.columns[wide.isna().any()]:
        lacking = wide.index[wide[method].isna()][0]
        raise InputError(f"results of {lacking}: {method} is missing; run {remake('attacks', lacking)}")
    return wide


def _show(frames: Frames) -> list[Block | str]:
    table, words = frames[""], WORDS["gating"]
    caption = words["caption"].format(intervals=describe_intervals(table["runs"].iloc[0]))
    blocks = [
        Block(rows, read_columns("gating"), f"{words['measures'][measure]} {caption}", measure)
        for measure, rows in table.groupby("measure", sort=False)
    ]
    return [*blocks, words["note"].format(runs=table["runs"].iloc[0])]


TABLE = Table(("table2", "table4", "attacks", "utility"), "Two-sided gating", build_gating, _show)
