"""What a fifth of the trials gives: strict F1 on test prompts with it and in full, on the same organisms."""

import pandas

from llmva.core.params import FIFTH_SUFFIX
from llmva.paper.names import MEAN, count_seeds, describe_runs, printed_rows
from llmva.paper.tables import resampling
from llmva.paper.tables.layout import WORDS, Block, Frames, Table, read_columns
from llmva.paper.tables.runs import read_runs

SCORE = "strict_f1"


def build_budget(results: Frames) -> Frames:
    """Return strict F1 in full and at a fifth, by model and method and on average, and a paired test of the two.

    A model is there where both of its studies are.
    """
    runs = read_runs(results["table2"], "table2")[SCORE].unstack("method", sort=False)
    short = runs.index.str.endswith(FIFTH_SUFFIX)
    fifth = runs[short].set_axis(runs.index[short].str.removesuffix(FIFTH_SUFFIX))
    full = runs[~short].loc[lambda rows: rows.index.isin(fifth.index)]
    fifth = fifth.loc[full.index]
    rows = [_compare(model, method, full.loc[[model], method], fifth.loc[[model], method])
            for model in full.index for method in full]  # fmt: skip
    return {"": pandas.DataFrame([*rows, *(_compare(MEAN, method, full[method], fifth[method]) for method in full)])}


def _compare(model: str, method: str, full: pandas.Series, fifth: pandas.Series) -> dict:
    means = {"strict_f1": full.mean(), "strict_f1_fifth": fifth.mean(), "change": (fifth - full).mean()}
    return {"model": model, "method": method, **means, "worst": fifth.min(), "p": resampling.paired_p(full, fifth)}


def _show(frames: Frames) -> list[Block | str]:
    words, rows = WORDS["budget"], printed_rows(frames[""])
    caption = words["caption"].format(models=describe_runs(count_seeds(rows.loc[rows["model"] != MEAN, "model"])))
    return [Block(rows[rows["model"] == MEAN], read_columns("budget"), caption), words["note"]]


TABLE = Table(("table2",), "Budget", build_budget, _show)
