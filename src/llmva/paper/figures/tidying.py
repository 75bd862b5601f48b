"""From long results to the numbers that a figure plots: rows with their keys, pivots, seeds averaged."""

from collections.abc import Iterable, Sequence

import pandas

from llmva.core.errors import InputError
from llmva.core.results import KEY_COLUMNS, read_results, remake, result_path
from llmva.core.vocabulary import LOWEST_F1
from llmva.paper.names import name_models


def read_long(item: str, slugs: Sequence[str], *, averaged: bool) -> pandas.DataFrame:
    """Read an item's results with all of `KEY_COLUMNS`, and `slug` and `item` added for the functions below.

    Where `averaged`, `model` is the base name of slugs that are several seeds of one model.
    """
    results = read_results(item, slugs)
    models = results["model"].map(name_models(slugs)) if averaged else results["model"]
    keys = results.reindex(columns=list(KEY_COLUMNS)).replace("", pandas.NA)
    return results.assign(**keys, slug=results["model"], model=models, item=item)


def select(results: pandas.DataFrame, names: Sequence[str], keys: Sequence[str] = ()) -> pandas.DataFrame:
    """Return the rows of some metrics that have all keys, such as `sublayer` or `method`.

    Raises
    ------
    InputError
        When a slug has no such row, or a metric is missing, or stands twice, where another one stands.
    """
    rows = results[results["metric"].isin(names)].dropna(subset=list(keys))
    rows = rows.astype({key: int for key in keys if KEY_COLUMNS.get(key) == "Int64"})
    for slug in results["slug"].unique():
        if slug not in set(rows["slug"]):
            _fail(results, slug, f"metric: no {' or '.join(names)}" + f" by {', '.join(keys)}" * bool(keys))
    counts = rows.groupby(["slug", *keys, "metric"]).size().unstack("metric")
    counts = counts.reindex(columns=list(names)).fillna(0).stack()
    for (slug, *places, name), count in counts[counts != 1].items():
        where = "".join(f", {key} {place}" for key, place in zip(keys, places, strict=True))
        _fail(results, slug, f"metric: {name}{where}: {'stands twice' if count else 'missing'}")
    return rows


def average(rows: pandas.DataFrame, names: Sequence[str], keys: Sequence[str] = ()) -> pandas.DataFrame:
    """Return one row per model and keys, one column per metric: the mean over seeds."""
    means = rows.groupby(["model", *keys, "metric"])["value"].mean().unstack("metric")
    return means[list(names)].rename_axis(columns=None).reset_index()


def widen(results: pandas.DataFrame, names: Sequence[str], keys: Sequence[str] = ()) -> pandas.DataFrame:
    """Select and average at once."""
    return average(select(results, names, keys), names, keys)


def split_sublayer(table: pandas.DataFrame) -> pandas.DataFrame:
    """Return a table with `kind` (attention, mlp) and `layer` in place of `sublayer`, behind `model`."""
    parts = table["sublayer"].astype(str).str.extract(r"^(?P<kind>\w+)\.(?P<layer>\d+)$").astype({"layer": int})
    return pandas.concat([table[["model"]], parts, table.drop(columns=["model", "sublayer"])], axis="columns")


def spread_runs(rows: pandas.DataFrame, name: str, keys: Sequence[str]) -> pandas.DataFrame:
    """Return one row per model and keys, one column `<name>_run_<number>` for each run that a mean is made of.

    There are no such columns where every model is one run.
    """
    numbers = rows.groupby("model")["slug"].transform(lambda slugs: pandas.factorize(slugs)[0] + 1)
    numbered = rows.assign(run=f"{name}_run_" + numbers.astype(str))
    runs = numbered.pivot(index=["model", *keys], columns="run", values="value").rename_axis(columns=None)
    return (runs if runs.shape[1] > 1 else runs[[]]).reset_index()


def count_stops(rows: pandas.DataFrame, within: str) -> pandas.DataFrame:
    """Return, from rows of strict F1, how many runs stopped, by model, method and iteration.

    A run was stopped where its strict F1 fell lower than the loop bears, or where others of its group went on.
    """
    curves = rows.sort_values("iteration")
    runs = curves.assign(start=curves["value"]).groupby(["slug", "method"])
    ends = runs.last().assign(start=runs["start"].first()).reset_index()
    fallen = (ends["value"] < LOWEST_F1) & (ends["value"] < ends["start"] / 2)
    shorter = ends["iteration"] < ends[within].map(curves.groupby(within)["iteration"].max())
    return ends[fallen | shorter].groupby(["model", "method", "iteration"]).size().rename("stopped").reset_index()


def carry_forward(rows: pandas.DataFrame, within: str) -> pandas.DataFrame:
    """Let a curve that ended early keep its last value to the end of the longest one in its group.

    A mean over the curves that are still there would rise wherever a failed one drops out.
    """
    curves = ["model", "slug", "method", "metric"]
    longer = []
    for _, group in rows.groupby(within):
        wide = group.pivot(index=curves, columns="iteration", values="value").ffill(axis="columns")
        longer.append(wide.stack().rename("value").reset_index())
    return pandas.concat(longer, ignore_index=True)


def require_methods(rows: pandas.DataFrame, methods: Iterable[str]) -> None:
    """Raise an `InputError` when a slug lacks one of the methods."""
    for slug, present in rows.groupby("slug"):
        for method in methods:
            if method not in set(present["method"]):
                _fail(rows, slug, f"method: no {method}")


def in_order(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the names once each: the known ones in their order, and what else there is behind them."""
    names = set(names)
    return [name for name in known if name in names] + sorted(names - set(known))


def _fail(results: pandas.DataFrame, slug: str, what: str) -> None:
    item = results["item"].iloc[0]
    raise InputError(f"{result_path(slug, item)}: {what}; run {remake(item, slug)}")
