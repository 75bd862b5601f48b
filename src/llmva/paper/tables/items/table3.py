"""Table 3: how many sublayers are edited, and what the paper prints and its code has."""

import pandas

from llmva.core.vocabulary import PAPER_LOOP
from llmva.paper.names import name_models
from llmva.paper.tables import formats as printing
from llmva.paper.tables.cells import Cell, spread
from llmva.paper.tables.formats import Column
from llmva.paper.tables.layout import Block, Table
from llmva.paper.tables.paper import share_of_sublayers

COLUMNS = ("model", "l_select", "sublayers", "share")
MODEL = Column("Model", printing.as_text)
PAPER_COLUMNS = {
    "model": MODEL,
    "l_select_printed": Column("L_select printed", printing.as_count),
    "l_select_code": Column("in the code", printing.as_count),
    "sublayers": Column("Sublayers", printing.as_count),
    "share_printed": Column("Share printed", printing.as_percent),
    "share_code": Column("in its code", printing.as_percent),
}


def make_table() -> Table:
    """Return the display item `table3`."""
    return Table("Table 3", ("table3",), build_selection, _blocks, _notes)


def build_selection(results: dict[str, pandas.DataFrame]) -> dict[str, pandas.DataFrame]:
    """Return one row per model, means over its seeds, and the paper's values (key `paper`)."""
    rows = results["table3"]
    rows = rows[rows["method"] == PAPER_LOOP].assign(dataset="any")
    chosen = spread(rows, {name: Cell("any", name) for name in COLUMNS[1:]}, "table3").droplevel("method")
    means = chosen.groupby(chosen.index.map(name_models(chosen.index)).rename("model"), sort=False).mean()
    return {"": means.reset_index()[list(COLUMNS)], "paper": share_of_sublayers()}


def _blocks(frames: dict[str, pandas.DataFrame]) -> list[Block]:
    columns = {
        "model": MODEL,
        "l_select": Column("L_select", printing.as_count),
        "sublayers": Column("Sublayers", printing.as_count),
        "share": Column("Share", printing.as_percent),
    }
    caption = "Number of edited sublayers (L_select) that validation chose, and its share of all sublayers, in %."
    paper = "L_select as the paper prints it and as its released code has it, and the shares of all sublayers, in %."
    return [
        Block(frames[""], columns, ("model",), caption),
        Block(frames["paper"], PAPER_COLUMNS, ("model",), paper, name="paper", paper=True),
    ]


def _notes(frames: dict[str, pandas.DataFrame]) -> list[str]:
    return [
        "Sublayers: attention and MLP of every block. L_select is chosen on validation; of several seeds the mean is "
        "given. The paper's printed columns stand under another order of models than its code's."
    ]
