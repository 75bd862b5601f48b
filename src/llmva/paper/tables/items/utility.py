"""Utility: how much of the original's performance each method keeps on the tasks that the results have."""

import pandas

from llmva.core.errors import InputError
from llmva.core.vocabulary import ALL_TASKS, LIKELIHOOD_TASKS, ORIGINAL
from llmva.measures.shares import share_kept
from llmva.paper.names import (
    MEAN,
    count_nouns,
    count_seeds,
    describe_runs,
    name_models,
    order_methods,
    printed_rows,
)
from llmva.paper.tables.cells import RUN, spread
from llmva.paper.tables.layout import WORDS, Block, Column, Frames, Table
from llmva.paper.tables.paper import read_paper_values

UTILITY_METRICS = {"f1": "F1", "accuracy": "accuracy", "perplexity": "perplexity"}
CHANCE = "chance"


def build_utility(results: Frames) -> Frames:
    """Return value, original's value and share kept by model, method and task: means over seeds, then models.

    The key `seeds` has the same of every single run.

    `kept` is a run's share of the original's value, as `shares_of` defines it, and undefined where the original has 0;
    such a run is left out of the mean. The rows of the task `mean` hold the mean of `kept` over the tasks. Where
    results have chance levels, a column `chance` holds them.
    """
    rows = results["utility"]
    parts = read_tasks(rows)
    metrics = rows[rows["metric"].isin(UTILITY_METRICS)].groupby("dataset")["metric"].first()
    averaged = {name: _mean_rows(frame) for name, frame in parts.items()}
    tables = {"": _long(averaged, metrics), "seeds": _long(parts, metrics)}
    chance = rows[rows["metric"] == CHANCE].groupby("dataset")["value"].mean()
    if chance.empty:
        return tables
    return {name: table.assign(chance=table["task"].map(chance)) for name, table in tables.items()}


def read_tasks(rows: pandas.DataFrame) -> dict[str, pandas.DataFrame]:
    """Return `value`, `original` and `kept` of each run and method (rows) and task (columns).

    The tasks are those that any run has.

    Raises
    ------
    InputError
        When a run or method lacks one of them.
    """
    rows = rows[rows["metric"].isin(UTILITY_METRICS)]
    for task, metrics in rows.groupby("dataset")["metric"].unique().items():
        if len(metrics) > 1:
            raise InputError(f"utility: {task}: has {' and '.join(metrics)}; record one metric for all models")
    there = set(rows["dataset"])
    cells = {task: (task, "value") for task in ALL_TASKS if task in there}
    value = spread(rows.assign(metric="value"), cells, "utility")
    if ORIGINAL not in value.index.unique("method"):
        raise InputError(f"utility: no rows of {ORIGINAL}, which the others are compared with; run `make utility`")
    models = value.index.get_level_values("model")
    original = value.xs(ORIGINAL, level="method").loc[models].set_axis(value.index)
    return {"value": value, "original": original, "kept": share_kept(value, original)}


def _mean_rows(frame: pandas.DataFrame) -> pandas.DataFrame:
    """Return the means over seeds by model and method, and below them those over models, as the model `mean`."""
    by_model = frame.rename(index=name_models(frame.index.unique("model")), level="model")
    by_model = by_model.groupby(["model", "method"], sort=False).mean()
    whole = by_model.groupby("method", sort=False).mean()
    return pandas.concat([by_model, pandas.concat({MEAN: whole}, names=["model"])])


def _long(parts: dict[str, pandas.DataFrame], metrics: pandas.Series) -> pandas.DataFrame:
    parts = {**parts, "kept": parts["kept"].assign(**{MEAN: parts["kept"].mean(axis=1)})}
    columns = {name: frame.rename_axis(columns="task").stack() for name, frame in parts.items()}
    order = [(*run, task) for run in parts["kept"].index for task in parts["kept"]]
    table = pandas.DataFrame(columns, index=pandas.MultiIndex.from_tuples(order, names=[*RUN, "task"])).reset_index()
    table.insert(3, "metric", table["task"].map(metrics))
    return table


def _show(frames: Frames) -> list[Block | str]:
    frame, runs = printed_rows(frames[""]), frames["seeds"]
    whole = frame[frame["model"] == MEAN]
    kept = whole.pivot(index="method", columns="task", values="kept").loc[order_methods(whole["method"])]
    kept["worst"] = runs[runs["task"] == MEAN].groupby("method")["kept"].min()
    there = [task for task in ALL_TASKS if task in kept]
    names = {**{task: ALL_TASKS[task] for task in there}, MEAN: "Mean", "worst": "Mean: worst run"}
    method = Column("method", "Method")
    columns = [method, *(Column(name, text, "percent") for name, text in names.items())]
    tasks = frame.dropna(subset="metric").drop_duplicates("task").groupby("metric", sort=False)["task"]
    scores = "; ".join(
        f"{UTILITY_METRICS[metric]} on {', '.join(ALL_TASKS[task] for task in group)}" for metric, group in tasks
    )
    words = WORDS["utility"]
    over = {"tasks": count_nouns(len(there), "task"), "runs": describe_runs(count_seeds(runs["model"]))}
    return [
        Block(kept.reset_index(), columns, words["caption"].format(**over)),
        " ".join([words["note"].format(scores=scores), *_by_likelihood(whole, words)]),
        Block(read_paper_values("utility"), [method, Column("kept", "Mean", "percent")], words["paper"], "paper"),
    ]


def _by_likelihood(whole: pandas.DataFrame, words: dict) -> list[str]:
    """Return a sentence with the original's value and the chance level of each task measured by likelihood, if any."""
    rows = whole[whole["method"].eq(ORIGINAL) & whole["task"].isin(LIKELIHOOD_TASKS)]
    if rows.empty:
        return []
    chance = rows["chance"] if "chance" in rows else [float("nan")] * len(rows)
    texts = [
        f"{LIKELIHOOD_TASKS[task]} {value:.3f} ({words['no_chance'] if pandas.isna(level) else f'{level:.3f}'})"
        for task, value, level in zip(rows["task"], rows["original"], chance, strict=True)
    ]
    return [words["likelihood"].format(values=", ".join(texts))]


TABLE = Table(("utility",), "Utility", build_utility, _show)
