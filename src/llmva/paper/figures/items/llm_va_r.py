"""Figure 13: LLM-VA-R beside its parts and baselines, and its controls apart, over organisms of its own."""

from typing import TYPE_CHECKING

import numpy
import pandas

from llmva.core.vocabulary import ORIGINAL, OUR_LOOP, PAPER_LOOP
from llmva.paper.figures.style import (
    GREY,
    METHOD_COLORS,
    OTHERS,
    STOP_MARK,
    add_caption,
    add_legend,
    new_figure,
    wrap,
)
from llmva.paper.figures.tidying import average, carry_forward, count_stops, in_order, require_methods, select, widen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FINALS = {
    "test_strict_f1": ("Strict F1, test", 1),
    "transfer_strict_f1": ("Strict F1, transfer", 1),
    "kept": ("Utility kept (%)", 100),
    "kept_gsm": ("Arithmetic kept (%)", 100),
}
# Methods without a loop, then the parts of LLM-VA-R, from the paper's method to all of them; the rest are controls.
PARTS = (
    ORIGINAL, "AlphaSteer", "AlphaSteer+", "Fine-tuning",
    PAPER_LOOP, "LLM-VA, L_select in full", "RMS", "soft SVM", "ridge edit", "RMS and ridge", OUR_LOOP,
)  # fmt: skip
REFERENCES = (ORIGINAL, OUR_LOOP)
MAX_ABREAST = 7
NOTE = (
    "Each dot is a model, each bar their mean. A stopped run keeps its last value in mean and range, to the end of the "
    "longest one."
)


def tidy_parts(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, method, measure, iteration (of the curves), value, and whether the run stopped there.

    Every method has final numbers, and a loop has a curve besides; ended curves keep their last value.
    """
    return _tidy(results[results["method"].isin(PARTS)])


def tidy_controls(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return the same of what else was varied, beside the original and LLM-VA-R."""
    controls = ~results["method"].isin(PARTS)
    return _tidy(results[controls | results["method"].isin(REFERENCES)]) if controls.any() else results[controls]


def _tidy(results: pandas.DataFrame) -> pandas.DataFrame:
    keys, finals = ["method", "iteration"], list(FINALS)
    logged, measured = select(results, ["strict_f1"], keys), select(results, finals, ["method"])
    order = in_order(results["method"], PARTS)
    require_methods(measured, order)
    require_methods(logged, in_order(logged["method"], PARTS))
    curves = average(carry_forward(logged, "method"), ["strict_f1"], keys)
    curves = curves.merge(count_stops(logged, "method"), how="left").fillna({"stopped": 0})
    parts = [
        curves.melt(["model", *keys, "stopped"], var_name="measure"),
        average(measured, finals, ["method"]).melt(["model", "method"], var_name="measure"),
    ]
    table = pandas.concat(parts, ignore_index=True).astype({"iteration": "Int64", "stopped": "Int64"})
    table = table.sort_values("method", key=lambda names: names.map(order.index), kind="stable")
    return table[["model", "method", "measure", "iteration", "value", "stopped"]]


def draw_parts(data: pandas.DataFrame) -> "Figure":
    """Draw strict F1 by iteration, mean and range over models for each variant, and the final numbers as dots."""
    variants = list(data["method"].unique())
    curves = data[data["measure"] == "strict_f1"].astype({"iteration": int})
    loops = list(curves["method"].unique())
    down = -(-len(loops) // MAX_ABREAST)
    heights = 1.3 * down + 0.35, 0.24 * len(variants) + 0.4
    figure = new_figure(7.2, sum(heights) + 0.8)
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    _draw_curves(upper, curves, loops, (down, -(-len(loops) // down)))
    _draw_strips(lower, data, variants)
    add_legend(figure)
    add_caption(figure, data, note=NOTE)
    return figure


def _draw_curves(figure, curves: pandas.DataFrame, loops: list[str], shape: tuple[int, int]) -> None:
    axes = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False).ravel()
    for axis in axes[len(loops) :]:
        axis.set_axis_off()
    for axis, loop in zip(axes, loops, strict=False):
        _draw_curve(axis, curves, loop, loops[0])
        # Also where a panel stands below: then all of a row look alike.
        axis.tick_params(labelbottom=True)
    figure.supxlabel("Iteration")
    figure.supylabel("Strict F1, validation")


def _draw_curve(axis, curves: pandas.DataFrame, variant: str, reference: str) -> None:
    import seaborn
    from matplotlib.ticker import MaxNLocator

    shared = {"x": "iteration", "y": "value", "ax": axis}
    rows = curves[curves["method"] == variant]
    # From the lowest model to the highest.
    band = {"errorbar": ("pi", 100), "err_kws": {"linewidth": 0, "alpha": 0.25}}
    seaborn.lineplot(rows, color=METHOD_COLORS.get(variant, "black"), **shared, **band)
    axis.plot([], [], color="black", label="Mean over models")
    axis.fill_between([], [], color="black", alpha=0.25, linewidth=0, label="Range over models")
    if variant != reference:
        looks = {"linewidth": 0.9, "linestyle": "--", "label": f"Mean of {reference}"}
        color = METHOD_COLORS.get(reference, GREY)
        seaborn.lineplot(curves[curves["method"] == reference], errorbar=None, color=color, **shared, **looks)
    stops = rows[rows["stopped"] > 0]
    if len(stops):
        axis.plot(stops["iteration"], stops["value"], label="A run stopped", **STOP_MARK)
    axis.set(xlabel="", ylabel="")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4, steps=[1, 2, 5, 10]))
    # Beside one another, as many letters as fit above a panel.
    axis.set_title(wrap(variant, 19), fontsize=6, **_emphasis(variant))


def _draw_strips(figure, data: pandas.DataFrame, variants: list[str]) -> None:
    axes = figure.subplots(1, len(FINALS), sharey=True)
    for axis, (measure, (label, factor)) in zip(axes, FINALS.items(), strict=True):
        rows = data[data["measure"] == measure]
        _draw_strip(axis, rows.assign(value=factor * rows["value"]), variants)
        axis.set(xlabel=label, ylabel="")
    # Scores beside scores and shares beside shares are compared by eye.
    for left, right in zip(axes[::2], axes[1::2], strict=True):
        right.sharex(left)
        right.autoscale(axis="x")
    axes[0].set_yticks(numpy.arange(len(variants)), [wrap(variant, 24) for variant in variants])
    for label, variant in zip(axes[0].get_yticklabels(), variants, strict=True):
        label.set(**_emphasis(variant))


def _draw_strip(axis, data: pandas.DataFrame, variants: list[str]) -> None:
    """Draw a row for each variant: a dot for each model, and the mean as a bar."""
    import seaborn

    shared = {"x": "value", "y": "method", "order": variants, "ax": axis, "legend": False}
    models = list(data["model"].unique())
    kinds = data["method"].where(data["method"].isin(list(METHOD_COLORS)), OTHERS)
    for kind, rows in data.groupby(kinds):
        colors = dict.fromkeys(models, GREY if kind == OTHERS else METHOD_COLORS[kind])
        seaborn.stripplot(rows, hue="model", palette=colors, dodge=True, jitter=False, size=2.8, **shared)
    if len(models) > 1:
        looks = {"color": "black", "marker": "|", "markersize": 11, "markeredgewidth": 1.2, "linestyle": "none"}
        seaborn.pointplot(data, errorbar=None, **shared, **looks)
    axis.locator_params(axis="x", nbins=5, steps=[1, 2.5, 5, 10])
    axis.grid(True, axis="y")


def _emphasis(variant: str) -> dict:
    return {"color": METHOD_COLORS.get(variant, "black"), "fontweight": "bold" if variant == OUR_LOOP else "normal"}
