"""How far a study's own seed moves the results: the same organism with other prompts, another split and samples."""

import pandas

from llmva.core.params import DRAW_SUFFIX
from llmva.paper.names import printed_rows
from llmva.paper.tables.formats import Column, as_count, as_decimal, as_spread, as_text
from llmva.paper.tables.layout import Block, Table
from llmva.paper.tables.runs import read_runs

SCORES = {"f1": "F1", "strict_f1": "Strict F1"}
COLUMNS = ("model", "method", "studies", *(f"{score}{part}" for score in SCORES for part in ("", "_sd", "_worst")))


def make_table() -> Table:
    """Return the display item `draws`."""
    return Table("Study seeds", ("table2",), build_draws, _blocks, _notes)


def build_draws(results: dict[str, pandas.DataFrame]) -> dict[str, pandas.DataFrame]:
    """Return mean, SD (ddof 1) and worst F1 and strict F1 on test prompts, by model and method, over study seeds."""
    runs = read_runs(results["table2"], "table2")[list(SCORES)].reset_index()
    runs["model"] = runs["model"].str.replace(DRAW_SUFFIX, "", regex=True)
    groups = runs.groupby(["model", "method"], sort=False)
    table = groups.size().rename("studies").to_frame()
    for score in SCORES:
        table[score], table[f"{score}_sd"], table[f"{score}_worst"] = (
            groups[score].agg(statistic) for statistic in ("mean", "std", "min")
        )
    return {"": table.reset_index()[list(COLUMNS)]}


def _blocks(frames: dict[str, pandas.DataFrame]) -> list[Block]:
    columns = {"model": Column("Model", as_text), "method": Column("Method", as_text)}
    for score, name in SCORES.items():
        columns |= {score: Column(name, as_decimal), f"{score}_spread": Column(f"{name}: SD / worst", as_spread)}
    columns["studies"] = Column("Studies", as_count)
    caption = "F1 on test prompts over several seeds of the study, each with prompts, a split and samples of its own."
    return [Block(printed_rows(frames[""]), columns, ("model", "method"), caption, long=True)]


def _notes(_: dict[str, pandas.DataFrame]) -> list[str]:
    return ["The organism is one and the same; Table 2 has the spread between organisms that differ in their seed."]
