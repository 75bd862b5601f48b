"""Figure 13: LLM-VA-R beside its parts, its controls and baselines, over organisms of its own."""

import textwrap
from typing import TYPE_CHECKING

import numpy
import pandas

from llmva.paper.figures.ablation_panels import STOP_MARK
from llmva.paper.figures.designs import add_legend, new_figure
from llmva.paper.figures.panels import BLUE, GREY, model_style
from llmva.paper.figures.tidying import (
    carry_forward,
    count_stops,
    group_seeds,
    in_order,
    parse_metrics,
    print_name,
    require_methods,
    widen,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
OURS, PALE_YELLOW, PALE_GREY = "LLM-VA-R", "#FFF0C2", "#F1F3F5"
MAX_ABREAST = 7


def tidy_ridge(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, method, measure, iteration (of the curves), value, and whether the run stopped there.

    Every method has final numbers, and a loop has a curve besides; ended curves keep their last value.
    """
    template = "<name>.<iteration>"
    logged = parse_metrics(results, template, ["strict_f1"])
    measured = parse_metrics(results, "<name>", list(FINALS))
    variants = in_order([*logged["method"], *measured["method"]], VARIANTS)
    require_methods(logged, in_order(logged["method"], VARIANTS))
    require_methods(measured, variants)
    curves = widen(carry_forward(logged, "method"), template, ["strict_f1"], by=("method",))
    finals = widen(measured, "<name>", list(FINALS), by=("method",))
    keys = ["model", "method", "iteration"]
    curves = curves.merge(count_stops(logged, "method"), how="left").fillna({"stopped": 0})
    long = [curves.melt([*keys, "stopped"], var_name="measure"), finals.melt(keys[:2], var_name="measure")]
    table = pandas.concat(long, ignore_index=True).astype({"iteration": "Int64", "stopped": "Int64"})
    table = table.sort_values("method", key=lambda names: names.map(variants.index), kind="stable")
    return table[["model", "method", "measure", "iteration", "value", "stopped"]]


def draw_ridge(data: pandas.DataFrame) -> "Figure":
    """Draw strict F1 by iteration, mean and range over models for each variant, and the final numbers as dots."""
    variants, models = list(data["method"].unique()), data["model"].nunique()
    curves = data[data["measure"] == "strict_f1"].astype({"iteration": int})
    loops = list(curves["method"].unique())
    down = -(-len(loops) // MAX_ABREAST)
    # As many dots as there are models fit beside one another in a row.
    heights = 1.3 * down + 0.35, (0.2 + 0.012 * models) * len(variants) + 0.4
    figure = new_figure(7.2, sum(heights) + 1)
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    _draw_curves(upper, curves, loops, (down, -(-len(loops) // down)))
    _draw_strips(lower, data, variants)
    add_legend(figure, NOTE)
    return figure


NOTE = (
    "LLM-VA-R is shaded yellow. A stopped run keeps its last value in mean and range, to the end of the longest one. "
    "Dots stand one below the other in the order of the models; seeds of one family look alike."
)


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
    stops = curves[(curves["method"] == variant) & (curves["stopped"] > 0)]
    if len(stops):
        axis.plot(stops["iteration"], stops["value"], label="A run stopped", **STOP_MARK)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4, steps=[1, 2, 5, 10]))
    # Beside one another, as many letters as fit above a panel.
    axis.set_title(_wrapped(variant, 19), fontsize=6, fontweight="bold" if variant == OURS else "normal")
    if variant == OURS:
        axis.set_facecolor(PALE_YELLOW)


def _draw_strips(figure, data: pandas.DataFrame, variants: list[str]) -> None:
    axes = figure.subplots(1, len(FINALS), sharey=True)
    for axis, (measure, (label, factor)) in zip(axes, FINALS.items(), strict=True):
        _draw_strip(axis, data[data["measure"] == measure], variants, factor)
        axis.set_xlabel(label)
    # Scores beside scores and shares beside shares are compared by eye.
    for left, right in zip(axes[::2], axes[1::2], strict=True):
        right.sharex(left)
        right.autoscale(axis="x")
    axes[0].set_yticks(numpy.arange(len(variants)), [_wrapped(variant, 24) for variant in variants])
    for label, variant in zip(axes[0].get_yticklabels(), variants, strict=True):
        label.set_fontweight("bold" if variant == OURS else "normal")


def _draw_strip(axis, data: pandas.DataFrame, variants: list[str], factor: float) -> None:
    """Draw a row for each variant: a dot for each model, seeds of one model alike, and the mean as a bar."""
    places = numpy.arange(len(variants))
    groups = group_seeds(data["model"])
    slugs = [slug for members in groups.values() for slug in members]
    steps = dict(zip(slugs, numpy.linspace(-0.36, 0.36, len(slugs)) if len(slugs) > 1 else [0.0], strict=True))
    for number, (model, members) in enumerate(groups.items()):
        rows = data[data["model"].isin(members)]
        heights = rows["method"].map(variants.index) + rows["model"].map(steps)
        style = model_style(number) | {"linestyle": "none", "markersize": 2.6}
        axis.plot(factor * rows["value"], heights, label=print_name(model), **style)
    if len(slugs) > 1:
        means = factor * data.groupby("method")["value"].mean()[variants]
        axis.vlines(means, places - 0.45, places + 0.45, color="black", linewidth=1.2, zorder=1.5)
    for place, variant in enumerate(variants):
        if variant == OURS or place % 2 == 0:
            color = PALE_YELLOW if variant == OURS else PALE_GREY
            axis.axhspan(place - 0.5, place + 0.5, color=color, linewidth=0, zorder=0)
    axis.set_ylim(len(variants) - 0.4, -0.6)
    axis.locator_params(axis="x", nbins=5, steps=[1, 2.5, 5, 10])
    axis.grid(False, axis="y")


def _wrapped(name: str, width: int) -> str:
    """Break a name into as few lines as possible, and these into equal ones."""
    lines = len(textwrap.wrap(name, width))
    widths = (narrow for narrow in range(1, width + 1) if len(textwrap.wrap(name, narrow)) == lines)
    return textwrap.fill(name, min(widths), break_long_words=False)
