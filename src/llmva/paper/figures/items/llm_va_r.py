"""Figure 13: LLM-VA-R beside its parts and baselines, and its controls apart, over organisms of its own."""

import pandas
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from llmva.core.vocabulary import MOVED_LOOP, ORIGINAL, OUR_LOOP, PAPER_LOOP
from llmva.paper.figures import style
from llmva.paper.figures.tidying import average, carry_forward, count_stops, in_order, require_methods, select

WORDS = style.WORDS["figure13"]
FINALS = WORDS["measures"]
# Methods without a loop, then the parts of LLM-VA-R, from the paper's method to all of them; the rest are controls.
PARTS = (
    ORIGINAL, "AlphaSteer", "AlphaSteer+", "Fine-tuning",
    PAPER_LOOP, "LLM-VA, L_select in full", "RMS", "soft SVM", "ridge edit", "RMS and ridge", OUR_LOOP, MOVED_LOOP,
)  # fmt: skip
MAX_ABREAST = 7
ROW_FILLED = 0.8


def tidy_parts(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, method, measure, iteration (of the curves), value, and whether the run stopped there.

    Every method has final numbers, and a loop has a curve besides; ended curves keep their last value.
    """
    return _tidy(results[results["method"].isin(PARTS)])


def tidy_controls(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return the same of what else was varied, beside the original and LLM-VA-R."""
    controls = ~results["method"].isin(PARTS)
    shown = controls | results["method"].isin([ORIGINAL, OUR_LOOP])
    return _tidy(results[shown]) if controls.any() else pandas.DataFrame({"model": []})


def draw_parts(data: pandas.DataFrame) -> Figure:
    """Draw strict F1 by iteration, mean and range over models for each variant, and the final numbers as dots."""
    curves = data[data["measure"] == "strict_f1"].astype({"iteration": int})
    variants, down = list(data["method"].unique()), -(-curves["method"].nunique() // MAX_ABREAST)
    heights = 1.3 * down + 0.35, 0.24 * len(variants) + 0.4
    figure = style.new_figure(7.2, sum(heights) + 0.8)
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    _draw_curves(upper, curves, down)
    _draw_finals(lower.subplots(1, data["measure"].nunique() - 1, sharey=True, squeeze=False)[0], data, variants)
    style.add_legend(figure, data, **WORDS["labels"])
    return figure


def _tidy(results: pandas.DataFrame) -> pandas.DataFrame:
    keys, order = ["method", "iteration"], in_order(results["method"], PARTS)
    # Arithmetic is no task of every model.
    finals = [name for name in FINALS if name != "kept_gsm" or name in set(results["metric"])]
    logged, measured = select(results, ["strict_f1"], keys), select(results, finals, ["method"])
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


def _draw_curves(figure, curves: pandas.DataFrame, down: int) -> None:
    loops = list(curves["method"].unique())
    axes = figure.subplots(down, -(-len(loops) // down), sharex=True, sharey=True, squeeze=False).ravel()
    for axis in axes[len(loops) :]:
        axis.set_axis_off()
    for axis, loop in zip(axes, loops, strict=False):
        _draw_curve(axis, curves, loop, loops[0])
        axis.set(xlabel="", ylabel="")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4, steps=[1, 2, 5, 10]))
        # Also where a panel stands below: then all of a row look alike.
        axis.tick_params(labelbottom=True)
        # Beside one another, as many letters as fit above a panel.
        axis.set_title(style.wrap(loop, 19), fontsize=6, **_emphasis(loop))
    figure.supxlabel("Iteration")
    figure.supylabel("Strict F1, validation")


def _draw_curve(axis, curves: pandas.DataFrame, variant: str, reference: str) -> None:
    many, shared = curves["model"].nunique() > 1, {"x": "iteration", "y": "value", "ax": axis}
    rows = curves[curves["method"] == variant]
    # From the lowest model to the highest.
    band = {"errorbar": ("pi", 100), "err_kws": {"linewidth": 0, "alpha": 0.25}}
    seaborn.lineplot(rows, color=_emphasis(variant)["color"], **shared, **band)
    # Named in black, since each method has a colour of its own.
    axis.plot([], [], color="black", label="Mean over models" if many else "The variant")
    if many:
        axis.fill_between([], [], color="black", alpha=0.25, linewidth=0, label="Range over models")
    if variant != reference:
        look = {"color": _emphasis(reference)["color"], "linewidth": 0.9, "linestyle": "--"}
        label = f"Mean of {reference}" if many else reference
        seaborn.lineplot(curves[curves["method"] == reference], errorbar=None, label=label, **shared, **look)
    stops = rows[rows["stopped"] > 0]
    if len(stops):
        axis.plot(stops["iteration"], stops["value"], label="A run stopped", **style.STOP_MARK)


def _draw_finals(axes: list, data: pandas.DataFrame, variants: list[str]) -> None:
    measures = {name: words for name, words in FINALS.items() if name in set(data["measure"])}
    for axis, (measure, (label, factor)) in zip(axes, measures.items(), strict=True):
        rows = data[data["measure"] == measure]
        _draw_strip(axis, rows.assign(value=factor * rows["value"]), variants)
        axis.set(xlabel=label, ylabel="")
    # Scores beside scores and shares beside shares are compared by eye.
    for left, right in zip(axes[::2], axes[1::2], strict=False):
        right.sharex(left)
        right.autoscale(axis="x")
    axes[0].set_yticks(range(len(variants)), [style.wrap(variant, 24) for variant in variants])
    for label, variant in zip(axes[0].get_yticklabels(), variants, strict=True):
        label.set(**_emphasis(variant))


def _draw_strip(axis, data: pandas.DataFrame, variants: list[str]) -> None:
    """Draw a row for each variant: a dot for each model, and the mean as a bar."""
    models = data["model"].unique()
    # Side by side in the order of the models, over most of the row's height.
    beside = data["model"].map({model: (place + 0.5) / len(models) - 0.5 for place, model in enumerate(models)})
    heights = data["method"].map(variants.index) + ROW_FILLED * beside
    colors = data["method"].map(style.METHOD_COLORS).fillna(style.GREY)
    axis.scatter(data["value"], heights, c=list(colors), s=2.8**2, linewidths=0)
    axis.set_ylim(len(variants) - 0.5, -0.5)
    if len(models) > 1:
        look = {"color": "black", "marker": "|", "markersize": 11, "markeredgewidth": 1.2, "linestyle": "none"}
        means = data.groupby("method")["value"].mean()
        axis.plot(means, means.index.map(variants.index), **look)
    axis.locator_params(axis="x", nbins=5, steps=[1, 2.5, 5, 10])
    axis.grid(True, axis="y")


def _emphasis(variant: str) -> dict:
    color = style.METHOD_COLORS.get(variant, "black")
    return {"color": color, "fontweight": "bold" if variant == OUR_LOOP else "normal"}
