"""What the paper claims of LLM-VA in numbers, and what came out here, with intervals over runs and a verdict."""

from collections.abc import Callable
from typing import NamedTuple

import numpy
import pandas

from llmva.core.vocabulary import BOTH, CONSTANTS, LOOPS, ORIGINAL, OUR_LOOP, PAPER_LOOP, TWO_SIDED, UNTUNED
from llmva.paper.names import is_variant, name_models
from llmva.paper.tables import resampling
from llmva.paper.tables.items.utility import read_tasks
from llmva.paper.tables.layout import WORDS, Block, Frames, Table, describe_intervals, read_columns
from llmva.paper.tables.paper import average_paper_values, read_headlines, read_paper_values
from llmva.paper.tables.runs import rates_and_counts, rates_of, read_runs


class Claim(NamedTuple):
    """A number of the paper: a quantity, its change against a base (where there is one), or its relative gain."""

    text: str
    paper: float
    quantity: str
    base: str = ORIGINAL
    relative: bool = False

    def measure(self, values: Frames, method: str, average: Callable) -> float | numpy.ndarray:
        """Return the number here for a method from `values` (by quantity), averaged over runs or each draw of them."""
        ours = average(values[self.quantity][method])
        if not self.base:
            return ours
        base = average(values[self.quantity][self.base])
        return ours / base - 1 if self.relative else ours - base


def build_headlines(results: Frames) -> Frames:
    """Return one row per claim and method, the paper's loop and ours: the paper's number, ours, interval, verdict."""
    values = _values(results)
    runs = values["strict_f1"].index
    draws = resampling.draw_runs(runs.map(name_models(runs)), "headlines")
    rows = []
    for claim in [claim for claim in _claims(values["strict_f1"].mean()) if claim.quantity in values]:
        for method in values["strict_f1"].columns.intersection([PAPER_LOOP, OUR_LOOP], sort=False):
            here = claim.measure(values, method, draws.mean)
            drawn = claim.measure(values, method, lambda column: draws.average(column.to_numpy()[draws.runs]))
            few = len(runs) < resampling.MIN_RUNS
            low, high = (numpy.nan, numpy.nan) if few else resampling.percentile_interval(drawn)[:2]
            verdict = judge_claim(low, high, 0.0 if claim.base else claim.paper, falls=claim.paper < 0)
            rows.append((claim.text, method, claim.paper, here, low, high, verdict, len(runs)))
    columns = ["claim", "method", "paper", "here", "here_low", "here_high", "verdict", "runs"]
    return {"": pandas.DataFrame(rows, columns=columns)}


def judge_claim(low: float, high: float, limit: float, falls: bool = False) -> str:
    """Return `holds` or `does not hold` where the whole interval lies on one side of the limit."""
    above, below = ("does not hold", "holds") if falls else ("holds", "does not hold")
    return above if low > limit else below if high < limit else "cannot be told"


def _claims(f1: pandas.Series) -> list[Claim]:
    """Return the claims; the best baselines are those of the highest `f1` by method."""
    paper = read_headlines()
    unseen = paper["transfer_mean_f1_llm_va"] - paper["transfer_mean_f1_original"]
    kept = read_paper_values("utility").set_index("method").at[PAPER_LOOP, "kept"]
    arithmetic = paper["utility_preserved_gsm8k_llm_va"]
    baselines = f1[~f1.index.isin([ORIGINAL, UNTUNED, *CONSTANTS, *LOOPS, TWO_SIDED, BOTH]) & ~f1.index.map(is_variant)]
    theirs = average_paper_values("table2").set_index("method")["f1"]
    papers = baselines[baselines.index.isin(theirs.index)]
    gain = paper["relative_f1_gain_over_best_baseline"]
    best_there = theirs.drop([ORIGINAL, PAPER_LOOP]).idxmax()
    groups = [
        (f"the best of the paper's baselines ({best_there} there)", papers, gain),
        # The paper has no number of it: it measures fewer.
        ("the best baseline of all", baselines, numpy.nan),
    ]
    best = [
        Claim(f"F1 above that of {group.idxmax()}, {what}: relative gain", number, "strict_f1", group.idxmax(), True)
        for what, group, number in groups
        if len(group)
    ]
    return [
        Claim("F1 above the original's", paper["llm_va_mean_f1"] - paper["original_mean_f1"], "strict_f1"),
        *best,
        Claim("change of ASR", -paper["asr_drop_points_vs_original"], "asr"),
        Claim("change of ORR", -paper["orr_drop_points_vs_original"], "orr"),
        Claim("F1 above the original's, unseen sets", unseen, "transfer_strict_f1"),
        Claim("utility kept, at least the paper's", kept, "kept", base=""),
        Claim("arithmetic kept, at least the paper's", arithmetic, "kept_gsm", base=""),
    ]


def _values(results: Frames) -> Frames:
    """Return frames by quantity: one row per run and one column per method."""
    test, transfer = (read_runs(results[item], item) for item in ("table2", "table4"))
    kept = read_tasks(results["utility"])["kept"]
    columns = {
        "strict_f1": test["strict_f1"],
        "transfer_strict_f1": transfer["strict_f1"],
        "kept": kept.mean(axis=1),
        # A model that cannot write answers has no such task.
        **({"kept_gsm": kept["gsm"]} if "gsm" in kept else {}),
        **{failure: _pooled(test, failure) for failure in ("asr", "orr")},
    }
    return {name: column.unstack("method").loc[test.index.unique("model")] for name, column in columns.items()}


def _pooled(runs: pandas.DataFrame, failure: str) -> pandas.Series:
    # Strictly: a broken reply is neither a refusal nor an answer, and mitigates nothing.
    rates, counts = rates_and_counts(runs, rates_of(runs, failure))
    return pandas.Series((rates * counts).sum(axis=1) / counts.sum(axis=1), index=runs.index)


def _show(frames: Frames) -> list[Block | str]:
    words, runs = WORDS["headlines"], int(frames[""]["runs"].iloc[0])
    caption = words["caption"].format(intervals=describe_intervals(runs))
    return [Block(frames[""], read_columns("headlines"), caption), words["note"].format(runs=runs)]


TABLE = Table(("table2", "table4", "utility"), "The paper's claims", build_headlines, _show)
