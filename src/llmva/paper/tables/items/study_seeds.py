"""How far a study's own seed moves the results: the same organism with other prompts, another split and samples."""

from llmva.core.params import DRAW_SUFFIX
from llmva.paper.names import printed_rows
from llmva.paper.tables.formats import METHOD, MODEL, SPREAD, Column, as_count, as_decimal
from llmva.paper.tables.layout import WORDS, Block, Frames, Table
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
    columns = [MODEL, METHOD]
    for score, name in SCORES.items():
        columns += [Column(score, name, as_decimal), Column(score, f"{name}: SD / worst", as_decimal, parts=SPREAD)]
    columns.append(Column("studies", "Studies", as_count))
    words = WORDS["draws"]
    return [Block(printed_rows(frames[""]), columns, words["caption"], long=True), words["note"]]


TABLE = Table("Study seeds", ("table2",), build_draws, _show)
