"""Figures 7 and 12: scores, rates and the loop's own means by iteration, with the one chosen and where runs stopped."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy
import pandas

from llmva.paper.figures.style import (
    BLUE,
    CHOSEN_MARK,
    GREEN,
    ORANGE,
    STOP_MARK,
    VERMILLION,
    draw_facets,
    draw_models,
    model_style,
    title_of,
)
from llmva.paper.figures.tidying import average, carry_forward, count_stops, select, widen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORES, RATES = ["strict_f1", "f1"], ["strict_f1", "asr", "orr", "degenerate"]
CURVES = {
    "strict_f1": ("Strict F1", {"color": BLUE, "linestyle": "-"}),
    "f1": ("F1", {"color": ORANGE, "linestyle": "--"}),
    "asr": ("ASR", {"color": VERMILLION, "linestyle": "-"}),
    "orr": ("ORR", {"color": GREEN, "linestyle": "--"}),
    "degenerate": ("Degenerate", {"color": "black", "linestyle": ":"}),
}
HEALTH = {
    "mean_angle": ("Angle of $v_a$ and $v_b$ (degrees)", 1),
    "mean_scale": ("Scale $s$", 1),
    "mean_accuracy_answer": ("Accuracy of $v_a$ (%)", 100),
    "divergence": ("Divergence (nats/token)", 1),
}
CHOSEN_LINE = {"color": "black", "linewidth": 0.6, "zorder": 1.5, "label": "Chosen iteration"}
NOTE = (
    "In strict F1 broken replies are wrong. A run stops where it falls below 0.1 and below half of the original's, so the "
    "x axes differ."
)
HEALTH_NOTE = "Means over the edited sublayers; the divergence is that of neutral replies. Iterations stand on a root scale."
TICKS = (0, 1, 2, 5, 10, 20, 40, 60, 100, 150, 200)


def tidy_scores(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, iteration, both scores, how many runs stopped there, and the iteration that was chosen."""
    return _by_iteration(results, SCORES)


def tidy_rates(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return the same of strict F1 and the rates."""
    return _by_iteration(results, RATES)


def tidy_health(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return the same of the loop's own means that were logged, one below the other: `quantity` and `value`."""
    names = set(results["metric"])
    # One by one, since not every quantity is logged at every iteration.
    curves = [
        _by_iteration(results, [name]).rename(columns={name: "value"}).assign(quantity=name)
        for name in HEALTH
        if name in names
    ]
    return pandas.concat(curves, ignore_index=True) if curves else pandas.DataFrame({"model": []})


def draw_iterations(data: pandas.DataFrame) -> "Figure":
    """Draw scores, or strict F1 and rates, against the iteration, with the chosen iteration and stops marked."""
    labels = {"x": "Iteration $T$", "y": "F1" if "f1" in data else "Strict F1, and rates", "note": NOTE}
    return draw_models(data, _draw_model, alone=(4, 2.4), among=(2.3, 1.8), sharex=False, **labels)


def draw_health(data: pandas.DataFrame) -> "Figure":
    """Draw angle, scale, accuracy and divergence against the iteration, a line for each model."""
    options = {"col": "quantity", "col_wrap": 2, "sharey": False, "size": (3.3, 1.8), "x": "Iteration", "y": ""}
    return draw_facets(data, _draw_quantity, note=HEALTH_NOTE, **options)


def _by_iteration(results: pandas.DataFrame, names: Sequence[str]) -> pandas.DataFrame:
    keys = ["model", "iteration"]
    rows = select(results, names, ["iteration"])
    curves = average(carry_forward(rows, "model"), names, ["iteration"])
    stops = count_stops(select(results, ["strict_f1"], ["iteration"]), "model")
    # Not every quantity is logged where a run stops: then its curve's end is marked.
    ends = stops["model"].map(curves.groupby("model")["iteration"].max())
    stops = stops.assign(iteration=numpy.minimum(stops["iteration"], ends)).groupby(keys)["stopped"].sum()
    curves = curves.merge(stops, on=keys, how="left").fillna({"stopped": 0}).astype({"stopped": int})
    return curves.merge(widen(results, ["best_iteration"]), on="model")


def _draw_model(axis, rows: pandas.DataFrame) -> None:
    curves = {name: look for name, look in CURVES.items() if name in rows}
    for name, (label, style) in curves.items():
        axis.plot(rows["iteration"], rows[name], label=label, **style)
    chosen, stopped = _chosen(rows), rows[rows["stopped"] > 0]
    axis.axvline(chosen["iteration"].iloc[0], **CHOSEN_LINE)
    axis.plot(chosen["iteration"], chosen["strict_f1"], **CHOSEN_MARK)
    if len(stopped):
        axis.plot(stopped["iteration"], stopped["strict_f1"], label="Run stopped", **STOP_MARK)
    axis.set_title(title_of(rows))
    axis.set_ylim(-0.04, 1.04)
    _count_iterations(axis)


def _draw_quantity(axis, rows: pandas.DataFrame) -> None:
    import seaborn

    label, factor = HEALTH[rows["quantity"].iloc[0]]
    rows = rows.assign(value=factor * rows["value"])
    style = model_style(list(rows["model"].unique())) | {"markers": False}
    seaborn.lineplot(rows, x="iteration", y="value", ax=axis, errorbar=None, **style)
    chosen = pandas.concat([_chosen(curve) for _, curve in rows.groupby("model")])
    stopped = rows[rows["stopped"] > 0]
    axis.plot(chosen["iteration"], chosen["value"], label="Chosen iteration", **CHOSEN_MARK)
    if len(stopped):
        axis.plot(stopped["iteration"], stopped["value"], label="Run stopped", **STOP_MARK)
    axis.set_title(label)
    # Some runs end after a tenth of the others' iterations.
    roots = (lambda x: numpy.sign(x) * numpy.sqrt(abs(x)), lambda x: x * abs(x))
    axis.set_xscale("function", functions=roots)
    last = rows["iteration"].max()
    axis.set(xlim=(-0.003 * last, 1.07 * last), xticks=[tick for tick in TICKS if tick <= last])


def _chosen(rows: pandas.DataFrame) -> pandas.DataFrame:
    # A mean over seeds can lie between two iterations: the nearest one is marked.
    nearest = (rows["iteration"] - rows["best_iteration"]).abs().idxmin()
    return rows.loc[[nearest]]


def _count_iterations(axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
