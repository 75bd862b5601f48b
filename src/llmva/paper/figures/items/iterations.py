"""Figures 7 and 12: scores, rates and the loop's own means by iteration, with the one chosen and where runs stopped."""

from collections.abc import Sequence
from functools import partial

import numpy
import pandas
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from llmva.paper.figures import style
from llmva.paper.figures.tidying import average, carry_forward, count_stops, select, widen

CURVES = {
    "strict_f1": ("Strict F1", {"color": style.BLUE, "linestyle": "-"}),
    "f1": ("F1", {"color": style.ORANGE, "linestyle": "--"}),
    "asr": ("ASR", {"color": style.VERMILLION, "linestyle": "-"}),
    "orr": ("ORR", {"color": style.GREEN, "linestyle": "--"}),
    "degenerate": ("Degenerate", {"color": "black", "linestyle": ":"}),
}
HEALTH_WORDS = style.WORDS["figure12_health"]
HEALTH = HEALTH_WORDS["measures"]
TICKS = (0, 1, 2, 5, 10, 20, 40, 60, 100, 150, 200)


def tidy_curves(names: Sequence[str], results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, iteration, some metrics, how many runs stopped there, and the iteration that was chosen."""
    keys = ["model", "iteration"]
    curves = average(carry_forward(select(results, names, ["iteration"]), "model"), names, ["iteration"])
    stops = count_stops(select(results, ["strict_f1"], ["iteration"]), "model")
    # Not every quantity is logged where a run stops: then its curve's end is marked.
    ends = stops["model"].map(curves.groupby("model")["iteration"].max())
    stops = stops.assign(iteration=numpy.minimum(stops["iteration"], ends)).groupby(keys)["stopped"].sum()
    curves = curves.merge(stops, on=keys, how="left").fillna({"stopped": 0}).astype({"stopped": int})
    return curves.merge(widen(results, ["best_iteration"]), on="model")


tidy_scores = partial(tidy_curves, ["strict_f1", "f1"])
tidy_rates = partial(tidy_curves, ["strict_f1", "asr", "orr", "degenerate"])


def tidy_health(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return the same of the loop's own means that were logged, one below the other: `quantity` and `value`."""
    logged = [name for name in HEALTH if name in set(results["metric"])]
    # One by one, since not every quantity is logged at every iteration.
    curves = [tidy_curves([name], results).rename(columns={name: "value"}).assign(quantity=name) for name in logged]
    return pandas.concat(curves, ignore_index=True) if curves else pandas.DataFrame({"model": []})


def draw_iterations(data: pandas.DataFrame) -> Figure:
    """Draw scores, or strict F1 and rates, against the iteration, with the chosen iteration and stops marked."""
    labels = {"y": "F1" if "f1" in data else "Strict F1, and rates", **style.WORDS["figure12"]["labels"]}
    return style.draw_models(data, _draw_model, alone=(4, 2.4), among=(2.3, 1.8), sharex=False, **labels)


def draw_health(data: pandas.DataFrame) -> Figure:
    """Draw angle, scale, accuracy and divergence against the iteration, a line for each model."""
    options = {"col": "quantity", "col_wrap": min(2, data["quantity"].nunique()), "sharey": False}
    return style.draw_facets(data, _draw_quantity, size=(3.3, 1.8), **HEALTH_WORDS["labels"], **options)


def _draw_model(axis, rows: pandas.DataFrame) -> None:
    for name, (label, look) in CURVES.items():
        if name in rows:
            axis.plot(rows["iteration"], rows[name], label=label, **look)
    axis.axvline(_mark(axis, rows, "strict_f1")["iteration"].iloc[0], color="black", linewidth=0.6, zorder=1.5)
    axis.set(title=style.title_of(rows), ylim=(-0.04, 1.04))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))


def _draw_quantity(axis, rows: pandas.DataFrame) -> None:
    label, factor = HEALTH[rows["quantity"].iloc[0]]
    rows, last = rows.assign(value=factor * rows["value"]), rows["iteration"].max()
    look = style.line_style("model", rows["model"].unique()) | {"markers": False}
    seaborn.lineplot(rows, x="iteration", y="value", ax=axis, errorbar=None, **look)
    _mark(axis, rows, "value")
    # Some runs end after a tenth of the others' iterations.
    axis.set_xscale("function", functions=(lambda x: numpy.sign(x) * numpy.sqrt(abs(x)), lambda x: x * abs(x)))
    axis.set(title=label, xlim=(-0.003 * last, 1.07 * last), xticks=[tick for tick in TICKS if tick <= last])


def _mark(axis, rows: pandas.DataFrame, name: str) -> pandas.DataFrame:
    """Mark where runs stopped, and the chosen iteration of each model, which are returned."""
    # A mean over seeds can lie between two iterations: the nearest one is marked.
    nearest = (rows["iteration"] - rows["best_iteration"]).abs().groupby(rows["model"]).idxmin()
    chosen, stopped = rows.loc[nearest], rows[rows["stopped"] > 0]
    axis.plot(chosen["iteration"], chosen[name], label="Chosen iteration", **style.CHOSEN_MARK)
    if len(stopped):
        axis.plot(stopped["iteration"], stopped[name], label="Run stopped", **style.STOP_MARK)
    return chosen
