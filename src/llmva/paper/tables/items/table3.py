"""Table 3: how many sublayers are edited, and what the paper prints and its code has."""

from llmva.core.vocabulary import PAPER_LOOP
from llmva.paper.names import name_models
from llmva.paper.tables.cells import spread
from llmva.paper.tables.formats import MODEL, Column, as_count, as_percent
from llmva.paper.tables.layout import WORDS, Block, Frames, Table
from llmva.paper.tables.paper import share_of_sublayers

SUBLAYERS = Column("sublayers", "Sublayers", as_count)
SELECTION = [MODEL, Column("l_select", "L_select", as_count), SUBLAYERS, Column("share", "Share", as_percent)]
PAPERS_SELECTION = [
    MODEL,
    Column("l_select_printed", "L_select printed", as_count),
    Column("l_select_code", "in the code", as_count),
    SUBLAYERS,
    Column("share_printed", "Share printed", as_percent),
    Column("share_code", "in its code", as_percent),
]


def build_selection(results: Frames) -> Frames:
    """Return one row per model, means over its seeds, and the paper's values (key `paper`)."""
    rows = results["table3"]
    cells = {name: ("validation", name) for name in ("l_select", "sublayers", "share")}
    chosen = spread(rows[rows["method"] == PAPER_LOOP], cells, "table3").droplevel("method")
    means = chosen.groupby(chosen.index.map(name_models(chosen.index)).rename("model"), sort=False).mean()
    return {"": means.reset_index(), "paper": share_of_sublayers()}


def _show(frames: Frames) -> list[Block | str]:
    words = WORDS["table3"]
    papers = Block(frames["paper"], PAPERS_SELECTION, words["paper"], "paper")
    return [Block(frames[""], SELECTION, words["caption"]), words["note"], papers]


TABLE = Table("Table 3", ("table3",), build_selection, _show)
