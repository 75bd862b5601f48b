"""Figures 5 and 8, which set models side by side: utility kept, and L_select."""

from typing import TYPE_CHECKING

import numpy
import pandas

from llmva.core.vocabulary import TASKS
from llmva.paper.figures.designs import add_legend, new_figure
from llmva.paper.figures.panels import BLUE, VERMILLION, model_style
from llmva.paper.figures.tidying import (
    in_order,
    parse_metrics,
    print_name,
    read_constants,
    require_methods,
    spread_runs,
    title_of,
    widen,
)
from llmva.paper.names import is_variant, order_methods

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = {"LLM-VA": BLUE, "LLM-VA-R": VERMILLION, "Other methods": "#B5BCC4"}
SELECTION = {
    "strict_f1": ("Strict F1", 1),
    "kept": ("Utility kept (%)", 100),
    "f1": ("F1", 1),
    "kept_gsm": ("Arithmetic kept (%)", 100),
}


def tidy_utility(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, method, task, its metric, and the share of the original's value that is kept.

    F1 is taken where a task has it, accuracy elsewhere. A task that the original cannot do has no share. Where a model
    is several runs, `kept_run_1` and on are their shares.
    """
    parts = parse_metrics(results[~results["method"].map(is_variant)], "<name>", ("f1", "accuracy"))
    has_f1 = parts["dataset"].isin(parts.loc[parts["name"] == "f1", "dataset"])
    parts = parts[parts["name"] == has_f1.map({True: "f1", False: "accuracy"})]
    parts = parts.rename(columns={"name": "metric"}).assign(name=parts["method"])
    require_methods(parts, ("Original", "LLM-VA"))
    methods = order_methods(parts["method"])
    # Shares first, then their mean over seeds: each seed is an organism of its own.
    original = parts[parts["name"] == "Original"].groupby(["slug", "dataset"])["value"].first()
    whole = original.reindex(pandas.MultiIndex.from_frame(parts[["slug", "dataset"]])).to_numpy()
    parts["value"] = (parts["value"] / whole).where(whole > 0)
    table = widen(parts, "<name>", methods, by=("dataset", "metric"))
    kept = table.melt(["model", "dataset", "metric"], methods, "method", "kept").rename(columns={"dataset": "task"})
    runs = spread_runs(parts, "kept", ["method", "dataset"]).rename(columns={"dataset": "task"})
    kept = kept.merge(runs, on=["model", "method", "task"], validate="one_to_one")
    order = {"method": methods, "task": in_order(kept["task"], TASKS)}
    for column, names in order.items():
        kept[column] = pandas.Categorical(kept[column], names)
    kept = kept.sort_values(["model", "method", "task"]).astype({"method": str, "task": str})
    return kept[["model", "method", "task", "metric", *kept.filter(regex="^kept")]]


def draw_utility(data: pandas.DataFrame) -> "Figure":
    """Draw the utility kept by method, and by task: of LLM-VA for each model, or of all methods for one model."""
    from matplotlib.ticker import MultipleLocator

    methods, models = list(data["method"].unique()), list(data["model"].unique())
    figure = new_figure(7.2, 0.21 * max(len(methods), len(models) + 1) + 0.85)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
    alone = len(models) == 1
    _draw_bars(left, 100 * data.groupby(["method", "model"])["kept"].mean().groupby("method").mean().loc[methods])
    _draw_ranges(left, data, methods)
    count = len(data["task"].unique())
    left.set(xlabel="Utility kept (%)")
    left.set_title(title_of(data) if alone else f"Mean over {len(models)} models and {count} tasks")
    left.xaxis.set_major_locator(MultipleLocator(25))
    rows = data if alone else data[data["method"] == "LLM-VA"]
    key = "method" if alone else "model"
    tasks = list(data["task"].unique())
    table = 100 * rows.pivot(index=key, columns="task", values="kept").loc[methods if alone else models, tasks]
    _draw_cells(right, table.assign(mean=table.mean(axis="columns")))
    right.set_title("By task (%)" if alone else "LLM-VA by model and task (%)")
    right.set_yticks(*_row_names(data, table.index, alone))
    add_legend(figure)
    return figure


def tidy_selection(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, L_select, scores, utility kept, and the L_select that was chosen."""
    template, names = "<name>.<l_select>", list(SELECTION)
    curves = widen(parse_metrics(results, template, names), template, names)
    return curves.merge(read_constants(results, ["chosen"]), on="model")


def draw_selection(data: pandas.DataFrame) -> "Figure":
    """Draw F1 (left) and utility (right) against L_select, a line for each model, with the chosen one marked."""
    # A mean over seeds can lie between two candidates: the nearest one is marked.
    chosen = data.loc[(data["l_select"] - data["chosen"]).abs().groupby(data["model"], sort=False).idxmin()]
    places = data["l_select"] + _apart(data)
    figure = new_figure(6.4, 4.3)
    axes = figure.subplots(2, 2, sharex=True).ravel()
    for axis, (name, (label, factor)) in zip(axes, SELECTION.items(), strict=True):
        for number, (_, rows) in enumerate(data.groupby("model", sort=False)):
            axis.plot(places[rows.index], factor * rows[name], label=title_of(rows), **model_style(number))
        axis.plot(places[chosen.index], factor * chosen[name], label="Chosen on validation", **CHOSEN)
        axis.set_ylabel(label)
    figure.supxlabel("Edited sublayers, $L_{select}$")
    add_legend(figure, SELECTION_NOTE)
    return figure


CHOSEN = {"color": "black", "marker": "o", "markersize": 7, "markerfacecolor": "none", "linestyle": "none"}
SELECTION_NOTE = (
    "Every point stands for five iterations. Circles: the number that the other figures and the tables have, chosen "
    "among fewer candidates (organisms: 8 and 12). Models are set a little apart sideways."
)


def _apart(data: pandas.DataFrame) -> pandas.Series:
    """Return how far each model's points are moved sideways, so that equal ones do not hide one another."""
    counts, models = numpy.unique(data["l_select"]), list(data["model"].unique())
    steps = 0.12 * (numpy.arange(len(models)) - (len(models) - 1) / 2)
    return data["model"].map(dict(zip(models, steps, strict=True))) * numpy.diff(counts, append=counts[-1] + 1).min()


def _draw_bars(axis, means: pandas.Series) -> None:
    places = numpy.arange(len(means))
    kinds = means.index.where(means.index.isin(list(COLORS)), "Other methods")
    for label, color in COLORS.items():
        if (kinds == label).any():
            axis.barh(places[kinds == label], means[kinds == label], height=0.66, color=color, label=label)
    axis.axvline(100, color="black", linewidth=0.6, linestyle=":")
    axis.set(yticks=places, yticklabels=means.index)
    axis.set_ylim(len(means) - 0.4, -0.6)
    axis.grid(False, axis="y")
    for place, mean in zip(places, means, strict=True):
        # In a column of their own, where neither bars nor ranges reach.
        axis.text(0.99, place, f"{mean:.0f}", ha="right", va="center", fontsize=7, transform=axis.get_yaxis_transform())


def _draw_ranges(axis, data: pandas.DataFrame, methods: list[str]) -> None:
    """Draw from the worst to the best run of a method, each the mean over its tasks; of one run, its tasks."""
    runs = list(data.filter(regex=r"^kept_run_\d+$")) or ["kept"]
    one = len(runs) == data["model"].nunique() == 1
    groups = data.groupby(["method", "task" if one else "model"])[runs].mean().groupby("method")
    lows, highs = (100 * getattr(groups, end)().loc[methods] for end in ("min", "max"))
    lows, highs = lows.min(axis="columns"), highs.max(axis="columns")
    style = {"color": "black", "linewidth": 0.9, "label": f"Range over {'tasks' if one else 'runs'}"}
    axis.hlines(numpy.arange(len(methods)), lows, highs, **style)
    axis.set_xlim(0, max(highs.max(), 100) + 17)


def _draw_cells(axis, table: pandas.DataFrame) -> None:
    values = numpy.ma.masked_invalid(table.to_numpy())
    axis.pcolormesh(values, cmap="Blues", vmin=0, vmax=130, edgecolor="white", linewidth=1)
    for (row, column), value in numpy.ndenumerate(table.to_numpy()):
        text = "–" if numpy.isnan(value) else f"{value:.0f}"
        color = "white" if value > 75 else "black"
        axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7, color=color)
    names = [TASKS.get(name, name.capitalize()) for name in table.columns]
    axis.set_xticks(numpy.arange(len(names)) + 0.5, names)
    axis.set_ylim(len(table), 0)
    axis.tick_params(length=0)
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _row_names(data: pandas.DataFrame, index: pandas.Index, alone: bool) -> tuple[numpy.ndarray, list[str]]:
    # The bars beside the cells have the methods' names already.
    seeds = data.groupby("model")["seeds"].first() if "seeds" in data else {}
    names = ["" if alone else print_name(name, int(seeds.get(name, 1))).replace(" (", "\n(") for name in index]
    return numpy.arange(len(names)) + 0.5, names
