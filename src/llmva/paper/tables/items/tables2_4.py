"""Tables 2 and 4 in print: the means over models, the models, and the paper's real models apart from them."""

from functools import partial

import pandas

from llmva.core.results import world_of
from llmva.core.vocabulary import CONSTANTS
from llmva.paper.names import MEAN, describe_runs, printed_rows
from llmva.paper.tables.layout import WORDS, Block, Column, Frames, Table, describe_levels, read_columns
from llmva.paper.tables.paper import MODELS, average_paper_values
from llmva.paper.tables.runs import build_rows

# The paper attacks in wrappers that its methods have seen, and in no others.
PAPER_ITEMS = ("table2", "table4")


def make_table(item: str) -> Table:
    """Return the display item `table2`, `table4` or `attacks`."""
    title = item.replace("table", "Table ").capitalize()
    return Table((item,), title, partial(build_rows, item), partial(_show, item))


def _show(item: str, frames: Frames) -> list[Block | str]:
    frame, words = printed_rows(frames[""]), WORDS["tables2_4"]
    mean, models = frame[frame["model"] == MEAN], frame[frame["model"] != MEAN]
    count, several = models["model"].nunique(), bool((models["seeds"] > 1).any())
    keys = (f"{item}_columns", "columns", "several_runs")
    rates, numbers, (run_p, runs) = (read_columns("tables2_4", key) for key in keys)
    rates = [column for column in rates if column.source in frame]
    columns = [Column("model", "Model"), *rates]
    columns += [*numbers, runs] if several else [column for column in numbers if column.parts != "spread"]
    sets = words[f"{item}_pretrained" if world_of(frame["model"].iloc[0]) == "pretrained" else item]
    caption = words["models_and_seeds" if several else "models"].format(sets=sets)
    parts = [Block(models, columns, caption, long=True), *_notes(frame, words)]
    if item in PAPER_ITEMS:
        parts.append(_show_paper(item, words))
    if count == 1:
        # One model is its own mean.
        return parts
    columns = [*rates, *numbers, run_p, runs]
    seeds = models.groupby("model", sort=False)["seeds"].first().to_dict()
    over = {"runs": describe_runs(seeds), "levels": describe_levels(count, sum(seeds.values()))}
    return [Block(mean, columns, words["means"].format(sets=sets, **over), "mean"), *parts]


def _show_paper(item: str, words: dict) -> Block:
    values = average_paper_values(item)
    columns = [column for column in read_columns("tables2_4", f"{item}_columns") if column.source in values]
    columns.append(Column("f1", "F1", "decimal", "high"))
    return Block(values, columns, words["paper"].format(count=MODELS), "paper")


def _notes(frame: pandas.DataFrame, words: dict[str, str]) -> list[str]:
    counts = sorted((frame["n"] / frame["seeds"]).round().astype(int).unique())
    prompts = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    notes = [words["note"].format(prompts=prompts, constants=" and ".join(CONSTANTS))]
    if (frame["seeds"] > 1).any():
        notes.append(words["pooled"])
    if (frame[["f1_low", "strict_f1_low"]].to_numpy() == frame[["f1_high", "strict_f1_high"]].to_numpy()).any():
        notes.append(words["constant"])
    return notes
