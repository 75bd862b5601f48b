"""How far a study's own seed moves the results: the same organism with other prompts, another split and samples."""

from llmva.core.params import DRAW_SUFFIX
from llmva.paper.names import printed_rows
from llmva.paper.tables.layout import WORDS, Block, Frames, Table, read_columns
from llmva.paper.tables.runs import SCORES, read_runs


def build_draws(results: Frames) -> Frames:
    """Return mean, SD (ddof 1) and worst F1 and strict F1 on test prompts, by model and method, over study seeds."""
    runs = read_runs(results["table2"], "table2").reset_index()
    runs["model"] = runs["model"].str.replace(DRAW_SUFFIX, "", regex=True)
    statistics = {"": "mean", "_sd": "std", "_worst": "min"}
    columns = {f"{score}{end}": (score, name) for score in SCORES for end, name in statistics.items()}
    groups = runs.groupby(["model", "method"], sort=False)
    return {"": groups.agg(studies=("f1", "size"), **columns).reset_index()}


def _show(frames: Frames) -> list[Block | str]:
    words = WORDS["draws"]
    return [Block(printed_rows(frames[""]), read_columns("draws"), words["caption"], long=True), words["note"]]


TABLE = Table(("table2",), "Study seeds", build_draws, _show)
