"""Table 1: what each method needs, and which of the two failures it mitigates, as measured."""

import numpy
import pandas

from llmva.core.errors import InputError
from llmva.core.provenance import random_generator
from llmva.core.vocabulary import ORIGINAL
from llmva.measures.intervals import Interval
from llmva.paper.names import name_models, printed_rows
from llmva.paper.tables import formats as printing
from llmva.paper.tables import resampling
from llmva.paper.tables.cells import Cell, spread
from llmva.paper.tables.formats import Column
from llmva.paper.tables.layout import Block, Table
from llmva.paper.tables.paper import read_paper_values
from llmva.paper.tables.runs import RATES, SEED, read_runs

NEEDS = {"without_finetuning": "finetunes", "without_structure_change": "hooks"}
FAILURES = {"over_refusal_mitigated": "orr", "jailbreak_mitigated": "asr"}
CHANGES = tuple(f"{failure}_change{end}" for failure in FAILURES.values() for end in ("", "_low", "_high"))
COLUMNS = ("method", *NEEDS, *FAILURES, *CHANGES)
CLAIMS = {
    "method": Column("Method", printing.as_text),
    "without_finetuning": Column("No fine-tuning", printing.as_mark),
    "without_structure_change": Column("Structure unchanged", printing.as_mark),
    "over_refusal_mitigated": Column("Over-refusal mitigated", printing.as_mark),
    "jailbreak_mitigated": Column("Jailbreak mitigated", printing.as_mark),
}


def make_table() -> Table:
    """Return the display item `table1`."""
    return Table("Table 1", ("table1", "table2"), build_claims, _blocks, _notes)


def build_claims(results: dict[str, pandas.DataFrame]) -> dict[str, pandas.DataFrame]:
    """Return the claims of every method that `table1` names, the original apart, from `table1` and `table2`."""
    needs = spread(results["table1"], {name: Cell("all", name) for name in NEEDS.values()}, "table1")
    runs = read_runs(results["table2"], "table2")
    rows = []
    for method in needs.index.unique("method").drop(ORIGINAL, errors="ignore"):
        row = {"method": method}
        for column, need in NEEDS.items():
            row[column] = "no" if _agreed(needs[need].xs(method, level="method"), need, method) else "yes"
        for column, failure in FAILURES.items():
            change, interval = _measure_change(runs, method, failure)
            row[column] = judge_change(interval)
            row |= {
                f"{failure}_change": change,
                f"{failure}_change_low": interval.low,
                f"{failure}_change_high": interval.high,
            }
        rows.append(row)
    return {"": pandas.DataFrame(rows, columns=list(COLUMNS))}


def judge_change(interval: Interval) -> str:
    """Return whether a failure is mitigated: `yes` where the whole interval of its change lies below 0.

    `no` where none of it does, and `unclear` where 0 is inside.
    """
    if interval.high < 0:
        return "yes"
    return "no" if interval.low >= 0 else "unclear"


def _measure_change(runs: pandas.DataFrame, method: str, failure: str) -> tuple[float, Interval]:
    """Return by how much a method changes ASR or ORR: the mean over seeds, then models, and its interval."""
    if method not in runs.index.unique("method"):
        raise InputError(f"table2: no results of {method}, which table1 names; run `make table2` for these models")
    names = [name for name in RATES["table2"] if name.endswith(f"_{failure}")]
    pair = [runs.xs(name, level="method") for name in (method, ORIGINAL)]
    models = pair[0].index.map(name_models(pair[0].index))
    counts = numpy.hstack([rows[[f"n.{name}" for name in names]].to_numpy(int) for rows in pair])
    # Strictly: a broken reply is neither a refusal nor an answer, and mitigates nothing.
    rates = numpy.hstack([rows[[f"strict_wrong.{name}" for name in names]].to_numpy() for rows in pair])
    ours = numpy.arange(counts.shape[1]) < len(names)

    def change(wrong: numpy.ndarray, n: numpy.ndarray) -> numpy.ndarray:
        return resampling.error_rate(wrong, n, ours) - resampling.error_rate(wrong, n, ~ours)

    # A method and the original share the drawn models and seeds, but not the drawn prompts.
    generator = random_generator(SEED, "hierarchical bootstrap", "table1", method, failure)
    draws = resampling.draw_runs(models, generator=generator)
    drawn = change(resampling.draw_wrong(rates, counts, draws, generator), counts[draws.runs])
    value = pandas.Series(change(numpy.rint(rates * counts), counts)).groupby(models.to_numpy()).mean().mean()
    return float(value), resampling.percentile_interval(resampling.average(drawn, draws))


def _agreed(values: pandas.Series, need: str, method: str) -> bool:
    if values.nunique() != 1 or values.iloc[0] not in (0, 1):
        found = ", ".join(f"{value:g}" for value in values.unique())
        raise InputError(f"table1: {need} of {method}: is {found}; it must be 0 or 1, and the same for all models")
    return bool(values.iloc[0])


def _blocks(frames: dict[str, pandas.DataFrame]) -> list[Block]:
    changes = {
        "orr_change": Column("ORR change", printing.as_change),
        "asr_change": Column("ASR change", printing.as_change),
    }
    measured = (
        "What each method needs, and whether it mitigates over-refusal and jailbreak: the change of ORR and ASR "
        "against the original, in points, broken replies counted as failures, mean over seeds and models, with its "
        "95 % interval (hierarchical bootstrap). "
        "Check mark: the whole interval lies below 0. Cross: none of it does. Unclear: 0 is inside."
    )
    frame, paper = printed_rows(frames[""]), read_paper_values("table1")
    return [
        Block(frame, {**CLAIMS, **changes}, ("method",), measured),
        Block(paper, CLAIMS, ("method",), "The claims of the paper's Table 1.", name="paper", paper=True),
    ]


def _notes(frames: dict[str, pandas.DataFrame]) -> list[str]:
    return [
        "Results hold counts and not single prompts: the bootstrap draws the prompts of a method and of the original "
        "apart, although they are the same prompts, so that these intervals are wider than paired ones mostly are."
    ]
