"""Table 3: how many sublayers are edited, and what the paper prints and its code has."""

from llmva.core.vocabulary import PAPER_LOOP
from llmva.paper.names import name_models
from llmva.paper.tables.cells import spread
from llmva.paper.tables.formats import MODEL, Column, as_count, as_percent
from llmva.paper.tables.layout import Block, Frames, Table
from llmva.paper.tables.paper import share_of_sublayers

SUBLAYERS = Column("Sublayers", as_count)


class Table3(Table):
    """The display item `table3`."""

    title = "Table 3"
    sources = ("table3",)

    def build(self, results: Frames) -> Frames:
        """Return one row per model, means over its seeds, and the paper's values (key `paper`)."""
        rows = results["table3"]
        cells = {name: ("validation", name) for name in ("l_select", "sublayers", "share")}
        chosen = spread(rows[rows["method"] == PAPER_LOOP], cells, "table3").droplevel("method")
        models = chosen.index.map(name_models(chosen.index)).rename("model")
        return {"": chosen.groupby(models, sort=False).mean().reset_index(), "paper": share_of_sublayers()}

    def show(self, frames: Frames) -> list[Block | str]:
        """Return our selection, a note, and the paper's."""
        columns = {
            "model": MODEL,
            "l_select": Column("L_select", as_count),
            "sublayers": SUBLAYERS,
            "share": Column("Share", as_percent),
        }
        paper = {
            "model": MODEL,
            "l_select_printed": Column("L_select printed", as_count),
            "l_select_code": Column("in the code", as_count),
            "sublayers": SUBLAYERS,
            "share_printed": Column("Share printed", as_percent),
            "share_code": Column("in its code", as_percent),
        }
        return [
            Block(
                frames[""],
                columns,
                "Number of edited sublayers (L_select) that validation chose, and its share of all sublayers, in %.",
            ),
            "Sublayers: attention and MLP of every block. L_select is chosen on validation; of several seeds the mean "
            "is given. The paper's printed columns stand under another order of models than its code's.",
            Block(
                frames["paper"],
                paper,
                "L_select as the paper prints it and as its released code has it, and the shares of all sublayers, "
                "in %.",
                name="paper",
            ),
        ]
