"""Figure 5: utility kept by every method, and where the edit costs most: arithmetic."""

from typing import TYPE_CHECKING

import numpy
import pandas

from llmva.core.vocabulary import ORIGINAL, OUR_LOOP, PAPER_LOOP, TASKS
from llmva.paper.figures.style import METHOD_COLORS, OTHERS, add_caption, add_legend, new_figure, title_of
from llmva.paper.figures.tidying import in_order, require_methods, select, spread_runs, widen
from llmva.paper.names import is_variant, order_methods

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ARITHMETIC = "gsm"
LOOPS = (PAPER_LOOP, OUR_LOOP)


def tidy_utility(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, method, task, its metric, and the share of the original's value that is kept.

    F1 is taken where a task has it, accuracy elsewhere. A task that the original cannot do has no share. Where a model
    is several runs, `kept_run_1` and on are their shares.
    """
    rows = results[results["metric"].isin(["f1", "accuracy"]) & ~results["method"].map(is_variant)]
    require_methods(rows, (ORIGINAL, PAPER_LOOP))
    has_f1 = rows["dataset"].isin(rows.loc[rows["metric"] == "f1", "dataset"])
    rows = rows[rows["metric"] == has_f1.map({True: "f1", False: "accuracy"})]
    methods, keys = order_methods(rows["method"]), ["task", "measure"]
    # Shares first, then their mean over seeds: each seed is an organism of its own.
    original = rows[rows["method"] == ORIGINAL].groupby(["slug", "dataset"])["value"].first()
    whole = original.reindex(pandas.MultiIndex.from_frame(rows[["slug", "dataset"]])).to_numpy()
    rows = rows.assign(task=rows["dataset"], measure=rows["metric"], metric=rows["method"])
    rows["value"] = (rows["value"] / whole).where(whole > 0)
    kept = widen(rows, methods, keys).melt(["model", *keys], methods, "method", "kept")
    kept = kept.merge(spread_runs(rows, "kept", ["method", "task"]), on=["model", "method", "task"])
    order = {"method": methods, "task": in_order(kept["task"], TASKS)}
    kept = kept.sort_values(list(order), key=lambda names: names.map(order[names.name].index), kind="stable")
    return kept.rename(columns={"measure": "metric"})[["model", "method", "task", "metric", *kept.filter(like="kept")]]


def draw_utility(data: pandas.DataFrame) -> "Figure":
    """Draw the utility that each method keeps, and the arithmetic: both loops' by model, or all methods' of one."""
    methods, models = data["method"].unique(), list(data["model"].unique())
    arithmetic = data[data["task"] == ARITHMETIC]
    figure = new_figure(7.2, 0.21 * max(len(methods), 2 * len(models)) + 1.2)
    axes = figure.subplots(1, 1 + bool(len(arithmetic)), squeeze=False)[0]
    alone, tasks = len(models) == 1, f"{data['task'].nunique()} tasks"
    title = f"{title_of(data)}, mean over {tasks}" if alone else f"Mean over {len(models)} models and {tasks}"
    _draw_methods(axes[0], data, title)
    for axis in axes[1:]:
        if alone:
            _draw_methods(axis, arithmetic, "Arithmetic alone")
            axis.set_yticklabels([])
        else:
            _draw_loops(axis, arithmetic)
    add_legend(figure)
    add_caption(figure, data, "Utility kept (% of the original's)")
    return figure


def _draw_methods(axis, data: pandas.DataFrame, title: str) -> None:
    """Draw a bar for each method, the mean over models of that over tasks, and its range over runs or tasks."""
    import seaborn

    methods = list(data["method"].unique())
    means = 100 * data.groupby(["method", "model"])["kept"].mean().groupby("method").mean().loc[methods]
    kinds = [name if name in METHOD_COLORS else OTHERS for name in methods]
    style = {"palette": METHOD_COLORS, "saturation": 1, "width": 0.66, "dodge": False}
    seaborn.barplot(x=means.to_numpy(), y=methods, hue=kinds, hue_order=in_order(kinds, METHOD_COLORS), ax=axis, **style)
    _draw_ranges(axis, data, methods)
    _write_numbers(axis, numpy.arange(len(methods)), means)
    axis.set_ylim(len(methods) - 0.4, -0.6)
    _finish(axis, title)


def _draw_ranges(axis, data: pandas.DataFrame, methods: list[str]) -> None:
    """Draw from the worst to the best run of a method, each the mean over its tasks; of one run, its tasks."""
    runs = list(data.filter(regex=r"^kept_run_\d+$")) or ["kept"]
    one = len(runs) == data["model"].nunique() == 1
    groups = data.groupby(["method", "task" if one else "model"])[runs].mean().groupby("method")
    lows, highs = (100 * getattr(groups, end)().loc[methods] for end in ("min", "max"))
    lows, highs = lows.min(axis="columns"), highs.max(axis="columns")
    style = {"color": "black", "linewidth": 0.9, "label": f"Range over {'tasks' if one else 'runs'}"}
    axis.hlines(numpy.arange(len(methods)), lows, highs, **style)


def _draw_loops(axis, data: pandas.DataFrame) -> None:
    """Draw the arithmetic that LLM-VA and LLM-VA-R keep on each model, side by side."""
    import seaborn

    rows = data[data["method"].isin(LOOPS)].assign(kept=100 * data["kept"])
    loops = in_order(rows["method"], LOOPS)
    style = {"hue_order": loops, "palette": METHOD_COLORS, "saturation": 1, "width": 0.7, "errorbar": None}
    seaborn.barplot(rows, x="kept", y="model", hue="method", ax=axis, **style)
    for number, loop in enumerate(loops):
        means = rows.loc[rows["method"] == loop, "kept"]
        _write_numbers(axis, numpy.arange(len(means)) + 0.7 * ((number + 0.5) / len(loops) - 0.5), means)
    labels = [title_of(rows).replace(" (", "\n(") for _, rows in data.groupby("model", sort=False)]
    axis.set_yticks(numpy.arange(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    _finish(axis, "Arithmetic alone, by model")


def _write_numbers(axis, places: numpy.ndarray, values: pandas.Series) -> None:
    for place, value in zip(places, values, strict=True):
        # In a column of their own, where neither bars nor ranges reach.
        style = {"ha": "right", "va": "center", "fontsize": 7, "transform": axis.get_yaxis_transform()}
        axis.text(0.99, place, "–" if numpy.isnan(value) else f"{value:.0f}", **style)


def _finish(axis, title: str) -> None:
    from matplotlib.ticker import MultipleLocator

    axis.axvline(100, color="black", linewidth=0.6, linestyle=":")
    axis.set(title=title, xlabel="", ylabel="", xlim=(0, max(axis.get_xlim()[1], 105) + 12))
    axis.grid(False, axis="y")
    axis.xaxis.set_major_locator(MultipleLocator(25))
