"""Table 1: what each method needs, and which of the two failures it mitigates, as measured."""

import numpy
import pandas

from llmva.core.errors import InputError
from llmva.core.vocabulary import ORIGINAL
from llmva.measures.intervals import Interval
from llmva.paper.names import name_models, printed_rows
from llmva.paper.tables import resampling
from llmva.paper.tables.cells import spread
from llmva.paper.tables.layout import WORDS, Block, Frames, Table, describe_levels, read_columns
from llmva.paper.tables.paper import read_paper_values
from llmva.paper.tables.runs import rates_and_counts, rates_of, read_runs

NEEDS = {"without_finetuning": "finetunes", "without_structure_change": "hooks"}
FAILURES = {"over_refusal_mitigated": "orr", "jailbreak_mitigated": "asr"}


def build_claims(results: Frames) -> Frames:
    """Return the claims of every method that `table1` names, the original apart, from `table1` and `table2`.

    `models` and `runs` are how many the changes are means over.
    """
    needs = spread(results["table1"], {name: ("all", name) for name in NEEDS.values()}, "table1")
    runs = read_runs(results["table2"], "table2")
    slugs, rows = runs.index.unique("model"), []
    counts = {"models": len(set(name_models(slugs).values())), "runs": len(slugs)}
    for method in needs.index.unique("method").drop(ORIGINAL, errors="ignore"):
        claims, changes = {"method": method}, {}
        for column, need in NEEDS.items():
            claims[column] = "no" if _agreed(needs[need].xs(method, level="method"), need, method) else "yes"
        for column, failure in FAILURES.items():
            change, interval = _measure_change(runs, method, failure)
            claims[column], changes[f"{failure}_change"] = judge_change(interval), change
            changes[f"{failure}_change_low"], changes[f"{failure}_change_high"], _ = interval
        rows.append(claims | changes | counts)
    return {"": pandas.DataFrame(rows)}


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
    pair = [runs.xs(name, level="method") for name in (method, ORIGINAL)]
    models = pair[0].index.map(name_models(pair[0].index))
    # Strictly: a broken reply is neither a refusal nor an answer, and mitigates nothing.
    numbers = [rates_and_counts(rows, rates_of(rows, failure)) for rows in pair]
    rates, counts = (numpy.hstack(part) for part in zip(*numbers, strict=True))
    ours = numpy.arange(counts.shape[1]) < counts.shape[1] / 2

    def change(wrong: numpy.ndarray, n: numpy.ndarray) -> numpy.ndarray:
        return resampling.error_rate(wrong, n, ours) - resampling.error_rate(wrong, n, ~ours)

    # A method and the original share the drawn models and seeds, but not the drawn prompts.
    draws = resampling.draw_runs(models, "table1", method, failure)
    drawn = change(draws.draw_wrong(rates, counts), counts[draws.runs])
    value = draws.mean(pandas.Series(change(numpy.rint(rates * counts), counts)))
    return float(value), draws.interval(drawn)


def _agreed(values: pandas.Series, need: str, method: str) -> bool:
    if values.nunique() != 1 or values.iloc[0] not in (0, 1):
        numbers = ", ".join(f"{value:g}" for value in values.unique())
        raise InputError(f"table1: {need} of {method}: is {numbers}; it must be 0 or 1, and the same for all models")
    return bool(values.iloc[0])


def _show(frames: Frames) -> list[Block | str]:
    words, claims, changes = WORDS["table1"], read_columns("table1"), read_columns("table1", "changes")
    models, runs = (int(frames[""][name].max()) for name in ("models", "runs"))
    levels = describe_levels(models, runs)
    papers = Block(read_paper_values("table1"), claims, words["paper"], "paper")
    return [
        Block(printed_rows(frames[""]), [*claims, *changes], words["caption"].format(levels=levels)),
        words["note"],
        papers,
    ]


TABLE = Table(("table1", "table2"), "Table 1", build_claims, _show)
