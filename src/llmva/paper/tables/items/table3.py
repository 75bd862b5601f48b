"""Table 3: how many sublayers are edited, and what the paper prints and its code has."""

from llmva.core.vocabulary import PAPER_LOOP
from llmva.paper.names import name_models
from llmva.paper.tables.cells import spread
from llmva.paper.tables.layout import WORDS, Block, Frames, Table, read_columns
from llmva.paper.tables.paper import share_of_sublayers


def build_selection(results: Frames) -> Frames:
    """Return one row per model, means over its seeds, and the paper's values (key `paper`)."""
    rows = results["table3"]
    cells = {name: ("validation", name) for name in ("l_select", "sublayers", "share")}
    chosen = spread(rows[rows["method"] == PAPER_LOOP], cells, "table3").droplevel("method")
    means = chosen.groupby(chosen.index.map(name_models(chosen.index)).rename("model"), sort=False).mean()
    return {"": means.reset_index(), "paper": share_of_sublayers()}


def _show(frames: Frames) -> list[Block | str]:
    words = WORDS["table3"]
    papers = Block(frames["paper"], read_columns("table3", "paper_columns"), words["paper"], "paper")
    return [Block(frames[""], read_columns("table3"), words["caption"]), words["note"], papers]


TABLE = Table(("table3",), "Table 3", build_selection, _show)
