"""Figure 5: utility kept by every method, and where the edit costs most: arithmetic."""

import numpy
import pandas
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from llmva.core.vocabulary import ALL_TASKS, ORIGINAL, OUR_LOOP, PAPER_LOOP
from llmva.measures.shares import shares_of
from llmva.paper.figures import style
from llmva.paper.figures.tidying import in_order, require_methods, spread_runs, widen
from llmva.paper.names import is_variant, order_methods

ARITHMETIC = "gsm"
LOOPS = (PAPER_LOOP, OUR_LOOP)
BARS = {"palette": style.METHOD_COLORS, "saturation": 1, "width": 0.7}


def tidy_utility(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, method, task, its metric, and the share of the original's value that is kept.

    F1 is taken where a task has it, accuracy or perplexity elsewhere; for the share see `shares_of`. A task that the
    original cannot do has no share. Where a model is several runs, `kept_run_1` and on are their shares.
    """
    rows = results[results["metric"].isin(["f1", "accuracy", "perplexity"]) & ~results["method"].map(is_variant)]
    require_methods(rows, (ORIGINAL, PAPER_LOOP))
    has_f1 = rows["dataset"].isin(rows.loc[rows["metric"] == "f1", "dataset"])
    rows = rows[~has_f1 | (rows["metric"] == "f1")]
    methods, keys = order_methods(rows["method"]), ["task", "measure"]
    # Shares first, then their mean over seeds: each seed is an organism of its own.
    original = rows[rows["method"] == ORIGINAL].groupby(["slug", "dataset"])["value"].first()
    whole = original.reindex(pandas.MultiIndex.from_frame(rows[["slug", "dataset"]])).to_numpy()
    rows = rows.assign(value=shares_of(rows["value"].to_numpy(), whole, rows["dataset"]))
    rows = rows.assign(task=rows["dataset"], measure=rows["metric"], metric=rows["method"])
    kept = widen(rows, methods, keys).melt(["model", *keys], methods, "method", "kept")
    kept = kept.merge(spread_runs(rows, "kept", ["method", "task"]), on=["model", "method", "task"])
    order = {"model": list(kept["model"]), "method": methods, "task": in_order(kept["task"], ALL_TASKS)}
    kept = kept.sort_values(list(order), key=lambda names: names.map(order[names.name].index), kind="stable")
    return kept.rename(columns={"measure": "metric"})[["model", "method", "task", "metric", *kept.filter(like="kept")]]


def draw_utility(data: pandas.DataFrame) -> Figure:
    """Draw the utility that each method keeps, and the arithmetic: both loops' by model, or all methods' of one."""
    models, arithmetic = data["model"].nunique(), data[data["task"] == ARITHMETIC]
    tasks = f"mean over {data['task'].nunique()} tasks"
    figure = style.new_figure(7.2, 0.21 * max(data["method"].nunique(), 2 * models) + 1.2)
    axes = figure.subplots(1, 1 + bool(len(arithmetic)), squeeze=False)[0]
    _draw_methods(axes[0], data)
    axes[0].set_title((f"{models} models" if models > 1 else style.title_of(data)) + f", {tasks}")
    for axis in axes[1:]:
        (_draw_loops if models > 1 else _draw_methods)(axis, arithmetic)
        axis.set_title("Arithmetic alone" + ", by model" * (models > 1))
        if models == 1:
            axis.set_yticklabels([])
    style.add_legend(figure, data, "Utility kept (% of the original's)")
    return figure


def _draw_methods(axis, data: pandas.DataFrame) -> None:
    """Draw a bar for each method, the mean over runs of that over tasks, and a line from the lowest run to the highest.

    Runs of one model weigh as much together as those of another.
    """
    methods = list(data["method"].unique())
    runs = list(data.filter(regex=r"^kept_run_\d+$")) or ["kept"]
    means = 100 * data.groupby(["method", "model"], sort=False)[runs].mean()
    kinds = [name if name in style.METHOD_COLORS else style.OTHERS for name in methods]
    bars = means.mean(axis="columns").groupby("method", sort=False).mean()
    hues = in_order(kinds, style.METHOD_COLORS)
    seaborn.barplot(x=bars.to_numpy(), y=methods, hue=kinds, hue_order=hues, dodge=False, ax=axis, **BARS)
    if means.size > len(methods):
        ends = means.agg(["min", "max"], axis="columns").groupby("method", sort=False).agg({"min": "min", "max": "max"})
        axis.hlines(methods, ends["min"], ends["max"], color="black", linewidth=0.9, label="Range over runs")
    _finish(axis, numpy.arange(len(methods)), bars)


def _draw_loops(axis, data: pandas.DataFrame) -> None:
    """Draw what LLM-VA and LLM-VA-R keep on each model, side by side."""
    rows = data[data["method"].isin(LOOPS)].assign(kept=100 * data["kept"])
    names = {model: style.title_of(runs).replace(" (", "\n(") for model, runs in rows.groupby("model", sort=False)}
    loops = in_order(rows["method"], LOOPS)
    shared = {"x": "kept", "y": "model", "hue": "method", "hue_order": loops, "errorbar": None, "ax": axis}
    seaborn.barplot(rows.assign(model=rows["model"].map(names)), **shared, **BARS)
    places = rows["model"].map(list(names).index) + 0.7 * (rows["method"].map(loops.index) + 0.5) / len(loops) - 0.35
    _finish(axis, places, rows["kept"])


def _finish(axis, places: numpy.ndarray, values: pandas.Series) -> None:
    for place, value in zip(places, values, strict=True):
        # In a column of their own, where neither bars nor ranges reach.
        look = {"ha": "right", "va": "center", "fontsize": 7, "transform": axis.get_yaxis_transform()}
        axis.text(0.99, place, "–" if numpy.isnan(value) else f"{value:.0f}", **look)
    axis.axvline(100, color="black", linewidth=0.6, linestyle=":")
    axis.set(xlabel="", ylabel="", xlim=(0, max(axis.get_xlim()[1], 105) + 12))
    axis.grid(False, axis="y")
    axis.xaxis.set_major_locator(MultipleLocator(25))
