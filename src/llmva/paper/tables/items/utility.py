"""Utility: how much of the original's performance each method keeps on the six tasks."""

import pandas

from llmva.core.errors import InputError
from llmva.core.vocabulary import ORIGINAL, TASKS
from llmva.paper.names import MEAN, name_models, order_methods, printed_rows
from llmva.paper.tables import formats as printing
from llmva.paper.tables.cells import Cell, spread
from llmva.paper.tables.formats import Column
from llmva.paper.tables.layout import Block, Table
from llmva.paper.tables.paper import headline

SCORES = {"f1": "F1", "accuracy": "accuracy"}
COLUMNS = ("model", "method", "task", "metric", "value", "original", "kept")
HEADLINES = {
    "LLM-VA": "utility_preserved_llm_va",
    "AlphaSteer": "utility_preserved_alphasteer",
    "AlphaSteer+": "utility_preserved_alphasteer_plus",
    "VectorSteer": "utility_preserved_vectorsteer",
    "SCANS": "utility_preserved_scans",
}


def make_table() -> Table:
    """Return the display item `utility`."""
    return Table("Utility", ("utility",), build_utility, _blocks, _notes)


def build_utility(results: dict[str, pandas.DataFrame]) -> dict[str, pandas.DataFrame]:
    """Return value, original's value and share kept by model, method and task: means over seeds, then models.

    The key `seeds` has the same of every single run.

    `kept` is a run's value / original, and undefined where the original has 0; such a run is left out of the mean.
    The rows of the task `mean` hold the mean of `kept` over the six tasks.
    """
    rows = results["utility"]
    rows = rows[rows["metric"].isin(list(SCORES))]
    metrics = _metric_of_task(rows)
    cells = {task: Cell(task, "value") for task in TASKS}
    value = spread(rows.assign(metric="value"), cells, "utility")
    original = _of_original(value)
    parts = {"value": value, "original": original, "kept": (value / original).where(original > 0)}
    averaged = {name: _mean_rows(frame) for name, frame in parts.items()}
    return {"": _long(averaged, metrics), "seeds": _long(parts, metrics)}


def _long(parts: dict[str, pandas.DataFrame], metrics: dict[str, str]) -> pandas.DataFrame:
    kept = parts["kept"]
    parts = {**parts, "kept": kept.assign(**{MEAN: kept.mean(axis=1)})}
    table = pandas.concat({name: _by_task(frame) for name, frame in parts.items()}, axis=1)
    levels = [kept.index.unique("model"), order_methods(kept.index.unique("method")), [*TASKS, MEAN]]
    table = table.reindex(pandas.MultiIndex.from_product(levels, names=["model", "method", "task"])).reset_index()
    return table.assign(metric=table["task"].map(metrics))[list(COLUMNS)]


def _metric_of_task(rows: pandas.DataFrame) -> dict[str, str]:
    metrics = rows.groupby("dataset")["metric"].unique()
    for task, found in metrics.items():
        if len(found) > 1:
            raise InputError(f"utility: {task}: has {' and '.join(found)}; record one metric for all models")
    return metrics.str[0].to_dict()


def _of_original(value: pandas.DataFrame) -> pandas.DataFrame:
    if ORIGINAL not in value.index.unique("method"):
        raise InputError(f"utility: no rows of {ORIGINAL}, which the others are compared with; run `make utility`")
    original = value.xs(ORIGINAL, level="method").loc[value.index.get_level_values("model")]
    return original.set_axis(value.index)


def _mean_rows(frame: pandas.DataFrame) -> pandas.DataFrame:
    """Return the means over seeds by model and method, and below them those over models, as the model `mean`."""
    names = frame.index.get_level_values("model").map(name_models(frame.index.unique("model")))
    methods = frame.index.get_level_values("method")
    by_model = frame.groupby([names.rename("model"), methods], sort=False).mean()
    whole = by_model.groupby("method", sort=False).mean()
    return pandas.concat([by_model, pandas.concat({MEAN: whole}, names=["model"])])


def _by_task(frame: pandas.DataFrame) -> pandas.Series:
    long = frame.melt(ignore_index=False, var_name="task", value_name="number")
    return long.set_index("task", append=True)["number"]


def _blocks(frames: dict[str, pandas.DataFrame]) -> list[Block]:
    frame = printed_rows(frames[""])
    models = frame.loc[frame["model"] != MEAN, "model"].nunique()
    whole = frame[frame["model"] == MEAN]
    kept = whole.pivot(index="method", columns="task", values="kept").loc[order_methods(whole["method"])].reset_index()
    columns = {"method": Column("Method", printing.as_text)}
    columns |= {task: Column(name, printing.as_percent) for task, name in {**TASKS, MEAN: "Mean"}.items()}
    columns["worst"] = Column("Mean: worst run", printing.as_percent)
    runs = frames["seeds"]
    kept["worst"] = kept["method"].map(runs[runs["task"] == MEAN].groupby("method")["kept"].min())
    over = f"mean over {models} models" if models > 1 else "one model"
    caption = f"Share of the original's score that each method keeps on six tasks, in %, {over}."
    return [
        Block(kept, columns, ("method",), caption),
        Block(_paper_rows(), _paper_columns(), ("method",), "Mean share kept, in %.", name="paper", paper=True),
    ]


def _paper_rows() -> pandas.DataFrame:
    rows = [(method, headline(item)) for method, item in HEADLINES.items()]
    frame = pandas.DataFrame(rows, columns=["method", "kept"]).set_index("method")
    return frame.loc[order_methods(frame.index)].reset_index()


def _paper_columns() -> dict[str, Column]:
    return {"method": Column("Method", printing.as_text), "kept": Column("Mean", printing.as_percent)}


def _notes(frames: dict[str, pandas.DataFrame]) -> list[str]:
    tasks = frames[""].dropna(subset="metric").drop_duplicates("task").groupby("metric", sort=False)["task"]
    shown = "; ".join(f"{SCORES[metric]} on {', '.join(TASKS[task] for task in names)}" for metric, names in tasks)
    return [
        f"Score: {shown}. Values by model are in the CSV. A run whose original scores 0 on a task has nothing to keep "
        "there and is left out of the mean."
    ]
