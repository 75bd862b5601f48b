"""The plots of a report as SVG, and the trade-off between both failures in figures and as a plot."""

import html
import io
from pathlib import Path

import matplotlib
import pandas
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from llmva.measures.intervals import wilson_interval

WORDS = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
COLOURS = {"original": "#8A8A8A", "aligned": "#0072B2"}


def show_trade_off(trials: pandas.DataFrame, prompts: pandas.DataFrame) -> pandas.DataFrame:
    """Return both failures by beta with their intervals, as text."""
    columns = {}
    for (metric, name), counted in zip(WORDS["failures"].items(), _failures(trials, prompts), strict=True):
        cells = zip(trials[metric], counted["low"], counted["high"], strict=True)
        columns[name] = [f"{share:.3f} [{low:.3f}, {high:.3f}]" for share, low, high in cells]
    broken = {WORDS["rates"]["degenerate"]: trials["degenerate"].round(3)}
    return pandas.DataFrame(columns | broken, index=trials.index).reset_index()


def _failures(trials: pandas.DataFrame, prompts: pandas.DataFrame) -> list[pandas.DataFrame]:
    tables = []
    for metric, label in zip(WORDS["failures"], ("toxic", "benign"), strict=True):
        n = int((prompts["label"] == label).sum())
        bounds = [wilson_interval(round(share * n), n)[:2] for share in trials[metric]]
        tables.append(pandas.DataFrame(bounds, columns=["low", "high"], index=trials.index))
    return tables


def draw_trade_off(trials: pandas.DataFrame, prompts: pandas.DataFrame, chosen: float) -> Figure:
    """Draw both failures on validation prompts by beta, with Wilson's 95 % intervals, and the chosen one.

    Parameters
    ----------
    trials : DataFrame
        Indexed by beta: strict_asr and strict_orr.
    prompts : DataFrame
        The validation prompts, of which the labels are counted.
    """
    figure, axes = draw_axes()
    toxic, benign = (trials[metric] for metric in WORDS["failures"])
    errors = [
        [values - table["low"], table["high"] - values]
        for values, table in zip((toxic, benign), _failures(trials, prompts), strict=True)
    ]
    style = {"color": COLOURS["aligned"], "markersize": 4, "linewidth": 0.8, "ecolor": "0.8", "elinewidth": 0.8}
    axes.errorbar(toxic, benign, xerr=errors[0], yerr=errors[1], fmt="o-", label="beta", **style)
    for beta in trials.index[:: max(1, len(trials) // 6)]:
        axes.annotate(
            f"{beta:+.2g}", (toxic[beta], benign[beta]), xytext=(4, 4), textcoords="offset points", fontsize=7
        )
    # A beta of the user's own need not be among those that were tried.
    if chosen in trials.index:
        axes.plot(toxic[chosen], benign[chosen], "o", color="#D55E00", label="this model")
    for name, set_label in zip(WORDS["failures"].values(), (axes.set_xlabel, axes.set_ylabel), strict=True):
        set_label(name, fontsize=8)
    return figure


def draw_axes() -> tuple[Figure, Axes]:
    """Return an empty plot of a report."""
    figure = Figure(figsize=(6.5, 2.4), layout="constrained")
    return figure, figure.add_subplot()


def draw_svg(figure: Figure, what: str) -> str:
    """Return a plot with its legend as an SVG element; `what` says in words what it shows."""
    axes = figure.axes[0]
    axes.legend(frameon=False, fontsize=8)
    drawn = io.StringIO()
    # Without dates and random names the same figures give the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "llmva", "svg.fonttype": "none", "font.size": 9}):
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    element = drawn.getvalue()[drawn.getvalue().index("<svg") :]
    return element.replace("<svg", f'<svg role="img" aria-label="{html.escape(what)}"', 1)
