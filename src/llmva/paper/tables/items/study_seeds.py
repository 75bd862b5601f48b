"""How far a study's own seed moves the results: the same organism with other prompts, another split and samples."""

from llmva.core.params import DRAW_SUFFIX
from llmva.paper.names import printed_rows
from llmva.paper.tables.formats import METHOD, MODEL, Column, as_count, as_decimal, as_spread
from llmva.paper.tables.layout import Block, Frames, Table
from llmva.paper.tables.runs import SPREAD, read_runs


class StudySeeds(Table):
    """The display item `draws`."""

    title = "Study seeds"
    sources = ("table2",)

    def build(self, results: Frames) -> Frames:
        """Return mean, SD (ddof 1) and worst F1 and strict F1 on test prompts, by model and method."""
        runs = read_runs(results["table2"], "table2").reset_index()
        runs["model"] = runs["model"].str.replace(DRAW_SUFFIX, "", regex=True)
        statistics = {"": "mean", "_sd": "std", "_worst": "min"}
        columns = {f"{score}{end}": (score, name) for score in SPREAD for end, name in statistics.items()}
        groups = runs.groupby(["model", "method"], sort=False)
        return {"": groups.agg(studies=("f1", "size"), **columns).reset_index()}

    def show(self, frames: Frames) -> list[Block | str]:
        """Return the rows that are printed, and a note."""
        columns = {"model": MODEL, "method": METHOD}
        for score, name in zip(SPREAD, ("F1", "Strict F1"), strict=True):
            columns |= {score: Column(name, as_decimal), f"{score}_spread": Column(f"{name}: SD / worst", as_spread)}
        columns["studies"] = Column("Studies", as_count)
        caption = (
            "F1 on test prompts over several seeds of the study, each with prompts, a split and samples of its own."
        )
        return [
            Block(printed_rows(frames[""]), columns, caption, long=True),
            "The organism is one and the same; Table 2 has the spread between organisms that differ in their seed.",
        ]
