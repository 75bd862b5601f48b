"""Tables 2 and 4 in print: the means over models, the models, and the paper's real models apart from them."""

from functools import partial

import pandas

from llmva.core.vocabulary import CONSTANTS
from llmva.paper.names import MEAN, printed_rows
from llmva.paper.tables import formats
from llmva.paper.tables.formats import INTERVAL, METHOD, MODEL, SPREAD, Column
from llmva.paper.tables.layout import WORDS, Block, Frames, Table
from llmva.paper.tables.paper import MODELS, average_paper_values
from llmva.paper.tables.runs import RATES, build_rows

RUNS = Column("seeds", "Runs", formats.as_count)


def make_table(item: str) -> Table:
    """Return the display item `table2` or `table4`."""
    return Table(item.replace("table", "Table "), (item,), partial(build_rows, item), partial(_show, item))


def _show(item: str, frames: Frames) -> list[Block | str]:
    frame, words = printed_rows(frames[""]), WORDS["tables2_4"]
    mean, models = frame[frame["model"] == MEAN], frame[frame["model"] != MEAN]
    count, several = models["model"].nunique(), bool((models["seeds"] > 1).any())
    rates = [Column(rate, name, formats.as_percent, "low") for rate, name in RATES[item].items()]
    numbers = [METHOD, *rates, *_number_columns(several)]
    caption = words["models_and_seeds" if several else "models"].format(sets=words[item])
    parts = [Block(models, [MODEL, *numbers, *([RUNS] if several else [])], caption, long=True), *_notes(frame, words)]
    papers = [METHOD, *rates, Column("f1", "F1", formats.as_decimal, "high")]
    parts.append(Block(average_paper_values(item), papers, words["paper"].format(count=MODELS), "paper"))
    if count == 1:
        # One model is its own mean.
        return parts
    columns = [METHOD, *rates, *_number_columns(several=True), Column("run_p", "p by run", formats.as_p_value), RUNS]
    return [Block(mean, columns, words["means"].format(count=count, sets=words[item]), "mean"), *parts]


def _number_columns(several: bool) -> list[Column]:
    columns = [
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


def _notes(frame: pandas.DataFrame, words: dict[str, str]) -> list[str]:
    counts = sorted((frame["n"] / frame["seeds"]).round().astype(int).unique())
    prompts = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    notes = [words["note"].format(prompts=prompts, constants=" and ".join(CONSTANTS))]
    if (frame["seeds"] > 1).any():
        notes.append(words["pooled"])
    if (frame[["f1_low", "strict_f1_low"]].to_numpy() == frame[["f1_high", "strict_f1_high"]].to_numpy()).any():
        notes.append(words["constant"])
    return notes
