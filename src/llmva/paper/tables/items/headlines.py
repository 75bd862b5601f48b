"""What the paper claims of LLM-VA in numbers, and what came out here, with intervals over runs and a verdict."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy
import pandas

from llmva.core.provenance import random_generator
from llmva.core.vocabulary import CONSTANTS, LOOPS, ORIGINAL, PAPER_LOOP
from llmva.paper.names import is_variant, name_models
from llmva.paper.tables import formats as printing
from llmva.paper.tables import resampling
from llmva.paper.tables.cells import Cell, spread
from llmva.paper.tables.formats import Column
from llmva.paper.tables.items.utility import TASKS
from llmva.paper.tables.layout import Block, Table
from llmva.paper.tables.paper import headline
from llmva.paper.tables.runs import RATES, SEED, read_runs

# Of the baselines here, those that the paper's Table 2 has.
PAPERS_OWN = ("VectorSteer", "AlphaSteer", "AlphaSteer+", "SCANS")
METHODS = (PAPER_LOOP, "LLM-VA-R")
COLUMNS = ("claim", "method", "paper", "here", "here_low", "here_high", "verdict", "runs")
# A bootstrap over fewer runs is far too narrow.
MIN_RUNS = 6


# By quantity, one row per run and one column per method.
Values = dict[str, pandas.DataFrame]
# Averages a column over runs: to a number, or to one for each draw of the bootstrap.
Mean = Callable[[pandas.Series], float | numpy.ndarray]


@dataclass(frozen=True)
class Claim:
    """A number of the paper, and how to find it here.

    Attributes
    ----------
    text : str
        What is claimed.
    paper : float
        The paper's number.
    measure : callable
        Gives the number here for a method, from values and a mean.
    limit : float
        The claim holds above it, or below it where `falls`.
    falls : bool
        Whether less is claimed and not more.
    """

    text: str
    paper: float
    measure: Callable[[Values, str, Mean], float | numpy.ndarray]
    limit: float = 0.0
    falls: bool = False


def make_table() -> Table:
    """Return the display item `headlines`."""
    return Table("The paper's claims", ("table2", "table4", "utility"), build_headlines, _blocks, _notes)


def build_headlines(results: dict[str, pandas.DataFrame]) -> dict[str, pandas.DataFrame]:
    """Return one row per claim and method, the paper's loop and ours: the paper's number, ours, interval, verdict."""
    values = _values(results)
    runs = values["strict_f1"].index
    families = [name_models(runs)[run] for run in runs]
    draws = resampling.draw_runs(families, generator=random_generator(SEED, "hierarchical bootstrap", "headlines"))

    def whole(column: pandas.Series) -> float:
        return float(column.groupby(families).mean().mean())

    def drawn(column: pandas.Series) -> numpy.ndarray:
        return resampling.average(column.to_numpy()[draws.runs], draws)

    rows = []
    for claim in _claims(values):
        for method in values["strict_f1"].columns.intersection(METHODS, sort=False):
            here, low, high = claim.measure(values, method, whole), numpy.nan, numpy.nan
            if len(runs) >= MIN_RUNS:
                low, high, _ = resampling.percentile_interval(claim.measure(values, method, drawn))
            verdict = judge_claim(low, high, claim.limit, claim.falls)
            rows.append((claim.text, method, claim.paper, here, low, high, verdict, len(runs)))
    return {"": pandas.DataFrame(rows, columns=list(COLUMNS))}


def judge_claim(low: float, high: float, limit: float, falls: bool = False) -> str:
    """Return `holds` or `does not hold` where the whole interval lies on one side of the limit."""
    above, below = ("does not hold", "holds") if falls else ("holds", "does not hold")
    return above if low > limit else below if high < limit else "cannot be told"


def _claims(values: Values) -> list[Claim]:
    means = values["strict_f1"].mean()
    baselines = means[~means.index.isin([ORIGINAL, *CONSTANTS, *LOOPS, *METHODS]) & ~means.index.map(is_variant)]
    best = {
        "the best baseline of the paper's own": (
            headline("relative_f1_gain_over_best_baseline"),
            baselines[baselines.index.isin(PAPERS_OWN)],
        ),
        # The paper measures no others.
        "the best baseline of all": (numpy.nan, baselines),
    }
    claims = [
        Claim(
            "F1 above the original's",
            headline("llm_va_mean_f1") - headline("original_mean_f1"),
            _above("strict_f1", ORIGINAL),
        ),
        *(
            Claim(f"F1 above that of {found.idxmax()}, {what}: relative gain", paper, _gain(found.idxmax()))
            for what, (paper, found) in best.items()
            if len(found)
        ),
        Claim("change of ASR", -headline("asr_drop_points_vs_original"), _above("asr", ORIGINAL), falls=True),
        Claim("change of ORR", -headline("orr_drop_points_vs_original"), _above("orr", ORIGINAL), falls=True),
        Claim(
            "F1 above the original's, unseen sets",
            headline("transfer_mean_f1_llm_va") - headline("transfer_mean_f1_original"),
            _above("transfer_strict_f1", ORIGINAL),
        ),
    ]
    for name, text, item in (
        ("kept", "utility kept", "utility_preserved_llm_va"),
        ("kept_gsm", "arithmetic kept", "utility_preserved_gsm8k_llm_va"),
    ):
        paper = headline(item)
        claims.append(Claim(f"{text}, at least the paper's", paper, _of(name), limit=paper))
    return claims


def _of(quantity: str) -> Callable:
    return lambda values, method, mean: mean(values[quantity][method])


def _above(quantity: str, base: str) -> Callable:
    return lambda values, method, mean: mean(values[quantity][method]) - mean(values[quantity][base])


def _gain(base: str) -> Callable:
    return lambda values, method, mean: mean(values["strict_f1"][method]) / mean(values["strict_f1"][base]) - 1


def _values(results: dict[str, pandas.DataFrame]) -> Values:
    test, transfer = (read_runs(results[item], item) for item in ("table2", "table4"))
    tasks = spread(_scores(results["utility"]), {task: Cell(task, "value") for task in TASKS}, "utility")
    original = tasks.xs(ORIGINAL, level="method").loc[tasks.index.get_level_values("model")].set_axis(tasks.index)
    kept = (tasks / original).where(original > 0)
    columns = {
        "strict_f1": test["strict_f1"],
        "transfer_strict_f1": transfer["strict_f1"],
        "kept": kept.mean(axis=1),
        "kept_gsm": kept["gsm"],
        **{failure: _pooled(test, failure) for failure in ("asr", "orr")},
    }
    return {name: column.unstack("method").loc[test.index.unique("model")] for name, column in columns.items()}


def _scores(rows: pandas.DataFrame) -> pandas.DataFrame:
    return rows[rows["metric"].isin(["f1", "accuracy"])].assign(metric="value")


def _pooled(runs: pandas.DataFrame, failure: str) -> pandas.Series:
    # Strictly: a broken reply is neither a refusal nor an answer, and mitigates nothing.
    names = [name for name in RATES["table2"] if name.endswith(f"_{failure}")]
    counts = runs[[f"n.{name}" for name in names]].to_numpy()
    wrong = runs[[f"strict_wrong.{name}" for name in names]].to_numpy() * counts
    return pandas.Series(wrong.sum(axis=1) / counts.sum(axis=1), index=runs.index)


def _blocks(frames: dict[str, pandas.DataFrame]) -> list[Block]:
    columns = {
        "claim": Column("Claim", printing.as_text),
        "method": Column("Method", printing.as_text),
        "paper": Column("The paper's", printing.as_decimal),
        "here": Column("Here", printing.as_score),
        "verdict": Column("Here it", printing.as_text),
    }
    caption = (
        "What the paper reports of its twelve real models, and the same quantities here, broken replies counted as "
        "wrong, with 95 % intervals: bootstrap over models and seeds. A claim holds, or does not, where its whole "
        "interval lies on one side of 0, or of the paper's own share of utility; fewer than six runs have no interval."
    )
    return [Block(frames[""], columns, ("claim", "method"), caption)]


def _notes(frames: dict[str, pandas.DataFrame]) -> list[str]:
    return [
        f"{int(frames['']['runs'].iloc[0])} runs. The paper's metrics take broken replies as they come. "
        "Sizes cannot be compared, since the prompts here are the original's errors to a fixed share; signs can."
    ]
