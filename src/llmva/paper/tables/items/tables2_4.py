"""Tables 2 and 4 in print: the means over models, the models, and the paper's real models apart from them."""

from functools import partial

import pandas

from llmva.core.vocabulary import CONSTANTS, PAPER_LOOP
from llmva.paper.names import MEAN, printed_rows
from llmva.paper.tables import formats
from llmva.paper.tables.formats import INTERVAL, METHOD, MODEL, SPREAD, Column
from llmva.paper.tables.layout import Block, Frames, Table
from llmva.paper.tables.paper import MODELS, average_paper_values
from llmva.paper.tables.runs import RATES, build_rows

RUNS = Column("seeds", "Runs", formats.as_count)
SETS = {
    "table2": (
        "Jailbreak (ASR, of S-Eval attack and risk) and over-refusal (ORR, of ORFuzzSet and NQ) on the test split"
    ),
    "table4": (
        "Jailbreak (ASR, of AdvBench, OR-Bench toxic and unsafe XSTest) and over-refusal (ORR, of OR-Bench and "
        "safe XSTest) on data sets that no method was fitted or tuned on"
    ),
}
MEASURED = "balanced accuracy and degenerate responses, all in %, and F1 over these sets"
TEST = f"p: exact McNemar test of {PAPER_LOOP} against the method, strictly judged"


def make_table(item: str) -> Table:
    """Return the display item `table2` or `table4`."""
    return Table(item.replace("table", "Table "), (item,), partial(build_rows, item), partial(_show, item))


def _show(item: str, frames: Frames) -> list[Block | str]:
    frame = printed_rows(frames[""])
    mean, models = frame[frame["model"] == MEAN], frame[frame["model"] != MEAN]
    count = models["model"].nunique()
    # One model is its own mean.
    means = [_mean_block(item, mean, count)] if count > 1 else []
    return [*means, _models_block(item, models), *_notes(frame), _paper_block(item)]


def _mean_block(item: str, frame: pandas.DataFrame, count: int) -> Block:
    caption = (
        f"Means over {count} models. {SETS[item]}, {MEASURED}. In brackets 95 % intervals: "
        "hierarchical bootstrap over models, seeds and prompts. SD and worst: over the runs. "
        f"{TEST}, all runs' prompts pooled; p by run: exact Wilcoxon test of strict F1, paired by run."
    )
    by_run = Column("run_p", "p by run", formats.as_p_value)
    return Block(frame, [METHOD, *_number_columns(item, several=True), by_run, RUNS], caption, name="mean")


def _models_block(item: str, frame: pandas.DataFrame) -> Block:
    several = bool((frame["seeds"] > 1).any())
    intervals = "BCa bootstrap within data sets"
    if several:
        intervals = f"hierarchical bootstrap over seeds and prompts (of a single run: {intervals})"
    pooled = ", all seeds' prompts pooled" if several else ""
    caption = f"Model by model. {SETS[item]}, {MEASURED}. In brackets 95 % intervals: {intervals}. {TEST}{pooled}."
    columns = [MODEL, METHOD, *_number_columns(item, several), *([RUNS] if several else [])]
    return Block(frame, columns, caption, long=True)


def _paper_block(item: str) -> Block:
    caption = f"Means over {MODELS} models, of the methods and numbers that the paper has."
    columns = [METHOD, *_rate_columns(item), Column("f1", "F1", formats.as_decimal, "high")]
    return Block(average_paper_values(item), columns, caption, name="paper")


def _number_columns(item: str, several: bool) -> list[Column]:
    columns = [
        *_rate_columns(item),
        Column("f1", "F1", formats.as_decimal, "high", INTERVAL),
        Column("f1", "F1: SD / worst", formats.as_decimal, parts=SPREAD),
        Column("balanced_accuracy", "Balanced", formats.as_percent, "high"),
        Column("degenerate", "Degenerate", formats.as_percent, "low"),
        Column("strict_f1", "Strict F1", formats.as_decimal, "high", INTERVAL),
        Column("strict_f1", "Strict F1: SD / worst", formats.as_decimal, parts=SPREAD),
        Column("n", "n", formats.as_count),
        Column("mcnemar_p", "p", formats.as_p_value),
    ]
    return [column for column in columns if several or column.parts != SPREAD]


def _rate_columns(item: str) -> list[Column]:
    return [Column(rate, name, formats.as_percent, "low") for rate, name in RATES[item].items()]


def _notes(frame: pandas.DataFrame) -> list[str]:
    counts = sorted((frame["n"] / frame["seeds"]).round().astype(int).unique())
    prompts = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    notes = [
        f"{prompts} prompts a run. The intervals of the rates (Wilson for a single run) and the further variants of "
        "methods are in the CSV. Strict F1 counts degenerate responses as wrong. Bold: best of the model, apart from "
        f"{' and '.join(CONSTANTS)}, which read no prompt."
    ]
    if (frame["seeds"] > 1).any():
        notes.append(
            "A p over several runs pools their prompts as if all were different ones. Where runs share prompts, or "
            "seeds of a model behave alike, it is too small; the p by run takes each run as one pair. A bootstrap over "
            "few models or seeds is too narrow."
        )
    if (frame[["f1_low", "strict_f1_low"]].to_numpy() == frame[["f1_high", "strict_f1_high"]].to_numpy()).any():
        notes.append("An interval of width zero comes from constant data and is no certainty.")
    return notes
