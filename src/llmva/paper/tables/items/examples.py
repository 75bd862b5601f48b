"""Examples: benign prompts of public sets, and what a pretrained model says to them before and after the alignment."""

from llmva.core.vocabulary import ORIGINAL, OUR_LOOP
from llmva.paper.tables.layout import WORDS, Block, Frames, Table, read_columns

VERDICTS = {1.0: "answered", 0.0: "not answered"}
# Would end a cell of a Markdown table.
BAR = "|"


def build_examples(results: Frames) -> Frames:
    """Return one row per prompt: model, dataset, id, prompt, before, after, judged."""
    keys = ["model", "dataset", "id", "prompt"]
    wide = results["examples"].pivot(index=keys, columns="method", values=["response", "value"])
    judged = wide["value"].astype(float).apply(lambda column: column.map(VERDICTS))
    table = wide["response"].map(_on_one_line)[[ORIGINAL, OUR_LOOP]].set_axis(["before", "after"], axis="columns")
    table["judged"] = judged[ORIGINAL] + " → " + judged[OUR_LOOP]
    return {"": table.rename_axis(columns=None).reset_index()}


def _on_one_line(text: str) -> str:
    return " ".join(text.replace(BAR, "/").split())


def _show(frames: Frames) -> list[Block | str]:
    rows, words = frames[""], WORDS["examples"]
    rows = rows.assign(prompt=rows["prompt"].map(_on_one_line))
    return [Block(rows, read_columns("examples"), words["caption"], long=True), words["note"]]


TABLE = Table(("examples",), "Examples", build_examples, _show)
