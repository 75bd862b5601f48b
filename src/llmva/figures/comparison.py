"""Figures 5, 8 and 13, which set models side by side: utility kept, L_select, and the ridge edit."""

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy
import pandas

from llmva.figures.designs import add_legend, new_figure
from llmva.figures.panels import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION
from llmva.figures.tidying import (
    carry_forward,
    group_seeds,
    parse_metrics,
    print_name,
    read_constants,
    require_methods,
    title_of,
    widen,
)
from llmva.tables.rows import is_variant, order_methods

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS, DASHES = ("o", "s", "^", "D", "v", "P"), ("-", "--", ":", "-.")
TASKS = {"cola": "CoLA", "mnli": "MNLI", "rte": "RTE", "mrpc": "MRPC", "sst": "SST-2", "gsm": "GSM"}
SELECTION = {
    "strict_f1": ("Strict F1", 1),
    "kept": ("Utility kept (%)", 100),
    "f1": ("F1", 1),
    "kept_gsm": ("Arithmetic kept (%)", 100),
}
FINALS = {
    "test_strict_f1": ("Strict F1, test", 1),
    "transfer_strict_f1": ("Strict F1, transfer", 1),
    "kept": ("Utility kept (%)", 100),
    "kept_gsm": ("Arithmetic kept (%)", 100),
}
# Methods without a loop, then the parts of LLM-VA-R, from the paper's method to all of them; what else was varied
# stands behind them.
VARIANTS = (
    "Original", "AlphaSteer", "AlphaSteer+", "Fine-tuning",
    "LLM-VA", "LLM-VA, L_select in full", "RMS", "soft SVM", "ridge edit", "RMS and ridge", "LLM-VA-R",
)  # fmt: skip


def tidy_utility(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, method, task, its metric, and the share of the original's value that is kept.

    F1 is taken where a task has it, accuracy elsewhere. A task that the original cannot do has no share.
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
    order = {"method": methods, "task": _in_order(kept["task"], TASKS)}
    for column, names in order.items():
        kept[column] = pandas.Categorical(kept[column], names)
    kept = kept.sort_values(["model", "method", "task"]).astype({"method": str, "task": str})
    return kept[["model", "method", "task", "metric", "kept"]]


def draw_utility(data: pandas.DataFrame) -> "Figure":
    """Draw the utility kept by method, and by task: of LLM-VA for each model, or of all methods for one model."""
    from matplotlib.ticker import MultipleLocator

    methods, models = list(data["method"].unique()), list(data["model"].unique())
    figure = new_figure(7.2, 0.21 * max(len(methods), len(models) + 1) + 0.85)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    alone = len(models) == 1
    spread = "task" if alone else "model"
    groups = 100 * data.groupby(["method", spread])["kept"].mean().unstack().loc[methods]
    _draw_bars(left, groups, f"Range over {spread}s")
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
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots(2, 2, sharex=True).ravel()
    for axis, (name, (label, factor)) in zip(axes, SELECTION.items(), strict=True):
        for number, (_, rows) in enumerate(data.groupby("model", sort=False)):
            axis.plot(rows["l_select"], factor * rows[name], label=title_of(rows), **_model_style(number))
        # A mean over seeds can lie between two candidates: the nearest one is marked.
        nearest = (data["l_select"] - data["chosen"]).abs().groupby(data["model"]).idxmin()
        chosen = data.loc[nearest]
        axis.plot(chosen["l_select"], factor * chosen[name], label="Chosen on validation", **CHOSEN)
        axis.set_ylabel(label)
    figure.supxlabel("Edited sublayers, $L_{select}$")
    add_legend(figure)
    return figure


def tidy_ridge(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, method, measure, iteration (of the curves) and value; ended curves keep their last value.

    Every method has final numbers, and a loop has a curve besides.
    """
    template = "<name>.<iteration>"
    logged = parse_metrics(results, template, ["strict_f1"])
    measured = parse_metrics(results, "<name>", list(FINALS))
    variants = _in_order([*logged["method"], *measured["method"]], VARIANTS)
    require_methods(logged, _in_order(logged["method"], VARIANTS))
    require_methods(measured, variants)
    curves = widen(carry_forward(logged, "method"), template, ["strict_f1"], by=("method",))
    finals = widen(measured, "<name>", list(FINALS), by=("method",))
    keys = ["model", "method", "iteration"]
    long = [curves.melt(keys, var_name="measure"), finals.melt(keys[:2], var_name="measure")]
    table = pandas.concat(long, ignore_index=True).astype({"iteration": "Int64"})
    table = table.sort_values("method", key=lambda names: names.map(variants.index), kind="stable")
    return table[["model", "method", "measure", "iteration", "value"]]


def draw_ridge(data: pandas.DataFrame) -> "Figure":
    """Draw strict F1 by iteration, mean and range over models for each variant, and the final numbers as dots."""
    variants = list(data["method"].unique())
    curves = data[data["measure"] == "strict_f1"].astype({"iteration": int})
    loops = list(curves["method"].unique())
    abreast = min(len(loops), 6)
    down = -(-len(loops) // abreast)
    heights = 1.35 * down, 0.23 * len(variants) + 0.4
    figure = new_figure(7.2, sum(heights) + 1)
    upper, lower = figure.add_gridspec(2, 1, height_ratios=heights)
    axes = upper.subgridspec(down, abreast).subplots(sharex=True, sharey=True, squeeze=False)
    for number, axis in enumerate(axes.ravel()):
        if number < len(loops):
            _draw_curve(axis, curves, loops[number], loops[0])
        else:
            axis.set_axis_off()
        if number + abreast >= len(loops):
            axis.tick_params(labelbottom=True)
            axis.set_xlabel("Iteration")
    for axis in axes[:, 0]:
        axis.set_ylabel("Strict F1,\nvalidation")
    axes = lower.subgridspec(1, len(FINALS)).subplots(sharey=True, squeeze=False)[0]
    for axis, (measure, (label, factor)) in zip(axes, FINALS.items(), strict=True):
        _draw_strip(axis, data[data["measure"] == measure], variants, factor)
        axis.set_xlabel(label)
    add_legend(figure)
    return figure


CHOSEN = {"color": "black", "marker": "o", "markersize": 7, "markerfacecolor": "none", "linestyle": "none"}


def _in_order(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the names once each: the known ones in their order, and what else there is behind them."""
    names = set(names)
    return [name for name in known if name in names] + sorted(names - set(known))


def _model_style(number: int) -> dict:
    turn = number // len(PALETTE)
    style = {"color": PALETTE[number % len(PALETTE)], "marker": MARKERS[number % len(MARKERS)]}
    return style | {"linestyle": DASHES[turn % len(DASHES)], "markerfacecolor": "white" if turn else style["color"]}


def _draw_bars(axis, groups: pandas.DataFrame, spread: str) -> None:
    places = numpy.arange(len(groups))
    means, lows, highs = (getattr(groups, end)(axis="columns") for end in ("mean", "min", "max"))
    ours = groups.index == "LLM-VA"
    for chosen, color, label in ((ours, BLUE, "LLM-VA"), (~ours, "#B5BCC4", "Other methods")):
        axis.barh(places[chosen], means[chosen], height=0.66, color=color, label=label)
    axis.hlines(places, lows, highs, color="black", linewidth=0.9, label=spread)
    # In a column of their own, where neither bars nor ranges reach.
    end = max(highs.max(), 100) + 14
    for place, mean in zip(places, means, strict=True):
        axis.text(end, place, f"{mean:.0f}", ha="right", va="center", fontsize=7)
    axis.axvline(100, color="black", linewidth=0.6, linestyle=":")
    axis.set(yticks=places, yticklabels=groups.index, xlim=(0, end))
    axis.set_ylim(len(groups) - 0.4, -0.6)
    axis.grid(False, axis="y")


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


def _draw_curve(axis, curves: pandas.DataFrame, variant: str, reference: str) -> None:
    from matplotlib.ticker import MaxNLocator

    alone = curves["model"].nunique() == 1
    spread = curves.groupby(["method", "iteration"])["value"].agg(["mean", "min", "max"])
    if variant != reference:
        label = reference if alone else f"Mean of {reference}"
        style = {"color": GREY, "linewidth": 0.9, "linestyle": "--", "label": label}
        axis.plot(spread.loc[reference].index, spread.loc[reference, "mean"], **style)
    rows = spread.loc[variant]
    axis.plot(rows.index, rows["mean"], color="black", label="The variant" if alone else "Mean over models")
    if not alone:
        band = {"color": BLUE, "alpha": 0.25, "linewidth": 0, "label": "Range over models"}
        axis.fill_between(rows.index, rows["min"], rows["max"], **band)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4, steps=[1, 2, 5, 10]))
    # Beside one another, as many letters as fit above a panel.
    axis.set_title(textwrap.fill(variant, 17), fontsize=7)


def _draw_strip(axis, data: pandas.DataFrame, variants: list[str], factor: float) -> None:
    """Draw a row for each variant: a dot for each model, seeds of one model alike, and the mean as a bar."""
    places = numpy.arange(len(variants))
    groups = group_seeds(data["model"])
    slugs = [slug for members in groups.values() for slug in members]
    steps = dict(zip(slugs, numpy.linspace(-0.28, 0.28, len(slugs)) if len(slugs) > 1 else [0.0], strict=True))
    for number, (model, members) in enumerate(groups.items()):
        rows = data[data["model"].isin(members)]
        heights = rows["method"].map(variants.index) + rows["model"].map(steps)
        style = _model_style(number) | {"linestyle": "none", "markersize": 3}
        axis.plot(factor * rows["value"], heights, label=print_name(model), **style)
    if len(slugs) > 1:
        means = factor * data.groupby("method")["value"].mean()[variants]
        axis.vlines(means, places - 0.42, places + 0.42, color="black", linewidth=1.2, zorder=1.5)
    for place in places[::2]:
        axis.axhspan(place - 0.5, place + 0.5, color="#F1F3F5", linewidth=0, zorder=0)
    axis.set_yticks(places, variants)
    axis.set_ylim(len(variants) - 0.4, -0.6)
    axis.locator_params(axis="x", nbins=4, steps=[1, 2, 5, 10])
    axis.grid(False, axis="y")
