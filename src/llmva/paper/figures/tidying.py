"""From long results to the numbers that a figure plots: metrics parsed, seeds averaged, models named."""

import re
from collections.abc import Iterable, Sequence

import pandas

from llmva.core.errors import InputError
from llmva.core.results import is_organism, read_results, result_path
from llmva.core.vocabulary import LOWEST_F1
from llmva.paper.names import name_models

# What a placeholder of a metric's template may stand for; `<name>` stands for the names that are asked for.
PLACEHOLDERS = {
    "kind": "attention|mlp",
    "vector": "benign|answer",
    "verdict": r"\w+",
    "sample": ".+",
    **dict.fromkeys(("layer", "iteration", "degrees", "draw", "l_select"), r"\d+"),
}


def read_long(item: str, slugs: Sequence[str], *, averaged: bool) -> pandas.DataFrame:
    """Read an item's results, with the columns `slug` and `item` added for the functions below.

    Where `averaged`, `model` is the base name of slugs that are several seeds of one model.
    """
    results = read_results(item, slugs)
    names = {slug: model for model, members in group_seeds(slugs).items() for slug in members}
    models = results["model"].map(names) if averaged else results["model"]
    return results.assign(slug=results["model"], model=models, item=item)


def group_seeds(slugs: Sequence[str]) -> dict[str, list[str]]:
    """Return the slugs of each model: seeds stand together under their base name, a lone slug under its own."""
    groups = {}
    for slug, model in name_models(slugs).items():
        groups.setdefault(model, []).append(slug)
    return groups


def print_name(slug: str, seeds: int = 1) -> str:
    """Return a model's name in print; organisms are marked as such wherever they appear."""
    notes = ["organism"] * is_organism(slug) + [f"{seeds} seeds"] * (seeds > 1)
    return f"{slug} ({', '.join(notes)})" if notes else slug


def title_of(data: pandas.DataFrame) -> str:
    """Return the print name of the one model in a figure's data."""
    return print_name(data["model"].iloc[0], int(data["seeds"].iloc[0]) if "seeds" in data else 1)


def parse_metrics(results: pandas.DataFrame, template: str, names: Sequence[str] = ()) -> pandas.DataFrame:
    """Return the rows whose metric fits a template such as `<name>.<kind>.<layer>`, its parts as columns of text.

    Raises
    ------
    InputError
        When a slug has no such metric.
    """
    # The longest first, so that no name is taken for the beginning of another.
    places = PLACEHOLDERS | {"name": "|".join(sorted(map(re.escape, names), key=len, reverse=True))}
    pattern = re.sub(r"<(\w+)>", lambda found: f"(?P<{found[1]}>{places[found[1]]})", template.replace(".", r"\."))
    matched = results["metric"].str.extract(f"^{pattern}$", flags=re.ASCII)
    parts = results.drop(columns="metric").join(matched).dropna(subset=list(matched.columns))
    for slug in results["slug"].unique():
        if slug not in set(parts["slug"]):
            _fail(results, slug, f"metric: none is {template}" + f" with name {', '.join(names)}" * bool(names))
    return parts


def widen(parts: pandas.DataFrame, template: str, names: Sequence[str], by: Sequence[str] = ()) -> pandas.DataFrame:
    """Return one row per model and place, one column per name: the mean over seeds.

    Parameters
    ----------
    parts : DataFrame
        From `parse_metrics`, with that template.
    names : sequence of str
        The columns.
    by : sequence of str
        Further columns that tell rows apart (`method`), before the template's own parts.

    Raises
    ------
    InputError
        When a name is missing at a place that another name has, or stands there twice.
    """
    keys = [*by, *(key for key in re.findall(r"<(\w+)>", template) if key != "name")]
    _check_complete(parts, template, names, keys)
    means = parts.groupby(["model", *keys, "name"])["value"].mean().unstack("name")
    table = means.reindex(columns=list(names)).rename_axis(columns=None).reset_index()
    numbers = [key for key in keys if PLACEHOLDERS.get(key) == r"\d+"]
    return table.astype(dict.fromkeys(numbers, int)).sort_values(["model", *keys], kind="stable", ignore_index=True)


def read_constants(results: pandas.DataFrame, names: Sequence[str]) -> pandas.DataFrame:
    """Return one row per model and one column per metric of that very name: the mean over seeds."""
    return widen(parse_metrics(results, "<name>", names), "<name>", names)


def spread_runs(parts: pandas.DataFrame, name: str, by: Sequence[str]) -> pandas.DataFrame:
    """Return one row per model and place, one column `<name>_run_<number>` for each run that a mean is made of.

    There are no such columns where every model is one run.
    """
    numbers = parts.groupby("model")["slug"].transform(lambda slugs: pandas.factorize(slugs)[0] + 1)
    numbered = parts.assign(run=f"{name}_run_" + numbers.astype(str))
    runs = numbered.pivot(index=["model", *by], columns="run", values="value").rename_axis(columns=None)
    return (runs if runs.shape[1] > 1 else runs[[]]).reset_index()


def count_stops(parts: pandas.DataFrame, within: str) -> pandas.DataFrame:
    """Return, by model, method and iteration, how many runs stopped there.

    A run was stopped where its strict F1 fell lower than the loop bears, or where others of its group went on.
    """
    curves = parts[parts["name"] == "strict_f1"].astype({"iteration": int}).sort_values("iteration")
    runs = curves.assign(start=curves["value"]).groupby(["slug", "method"])
    ends = runs.last().assign(start=runs["start"].first()).reset_index()
    fallen = (ends["value"] < LOWEST_F1) & (ends["value"] < ends["start"] / 2)
    shorter = ends["iteration"] < ends[within].map(curves.groupby(within)["iteration"].max())
    return ends[fallen | shorter].groupby(["model", "method", "iteration"]).size().rename("stopped").reset_index()


def carry_forward(parts: pandas.DataFrame, within: str) -> pandas.DataFrame:
    """Let a curve that ended early keep its last value to the end of the longest one in its group.

    A mean over the curves that are still there would rise wherever a failed one drops out.
    """
    longer = [parts]
    for _, group in parts.groupby(within):
        steps = sorted(group["iteration"].unique(), key=int)
        for _, curve in group.groupby(["slug", "method"]):
            last = max(curve["iteration"], key=int)
            ending = curve[curve["iteration"] == last]
            longer += [ending.assign(iteration=step) for step in steps if int(step) > int(last)]
    return pandas.concat(longer, ignore_index=True)


def require_methods(parts: pandas.DataFrame, methods: Sequence[str]) -> None:
    """Raise an `InputError` when a slug lacks one of the methods."""
    for slug, rows in parts.groupby("slug"):
        for method in methods:
            if method not in set(rows["method"]):
                _fail(parts, slug, f"method: no {method}")


def in_order(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the names once each: the known ones in their order, and what else there is behind them."""
    names = set(names)
    return [name for name in known if name in names] + sorted(names - set(known))


def _check_complete(parts: pandas.DataFrame, template: str, names: Sequence[str], keys: list[str]) -> None:
    full = ["slug", *keys, "name"]
    twice = parts[parts.duplicated(full)]
    wanted = parts[full[:-1]].drop_duplicates().merge(pandas.DataFrame({"name": list(names)}), how="cross")
    present = pandas.MultiIndex.from_frame(parts[full])
    missing = wanted[~pandas.MultiIndex.from_frame(wanted).isin(present)]
    for rows, what in ((twice, "stands twice"), (missing, "missing")):
        if len(rows):
            row = rows.iloc[0]
            metric = re.sub(r"<(\w+)>", lambda found, row=row: row[found[1]], template)
            owner = " ".join(row[key] for key in keys if f"<{key}>" not in template)
            _fail(parts, row["slug"], f"metric: {metric}{f' of {owner}' * bool(owner)} {what}")


def _fail(results: pandas.DataFrame, slug: str, what: str) -> None:
    item = results["item"].iloc[0]
    raise InputError(f"{result_path(slug, item)}: {what}; run `make {item} MODELS={slug}`")
