"""One style for every figure: colours, markers, names in print, a panel for each facet, legends and notes.

A notebook's plot looks the same inside `with paper_style():`.
"""

import textwrap
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas

from llmva.core.results import is_organism
from llmva.core.vocabulary import OUR_LOOP, PAPER_LOOP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("paper.mplstyle")
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#A24A80", "#E69F00", "#56B4E9"
GREY, PALE_GREY = "#8A8A8A", "#B5BCC4"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS, DASHES = ("o", "s", "^", "D", "v", "P"), ("", (4, 1.5), (1, 1), (3, 1.25, 1.5, 1.25))
OTHERS = "Other methods"
METHOD_COLORS = {PAPER_LOOP: BLUE, OUR_LOOP: VERMILLION, OTHERS: PALE_GREY}
KINDS = {"attention": "Attention", "mlp": "MLP"}
# What seaborn takes to draw both kinds of sublayer.
KIND_STYLE = {
    "hue": "kind",
    "style": "kind",
    "palette": dict(zip(KINDS.values(), PALETTE, strict=False)),
    "markers": dict(zip(KINDS.values(), MARKERS, strict=False)),
    "dashes": dict(zip(KINDS.values(), DASHES, strict=False)),
    "markeredgewidth": 0,
}
CHOSEN_MARK = {"color": "black", "marker": "o", "markersize": 6, "markerfacecolor": "none", "linestyle": "none"}
STOP_MARK = {"color": "black", "marker": "X", "markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.5}
STOP_MARK |= {"linestyle": "none", "zorder": 3, "clip_on": False}
NOTE_SIZE = 6.5
ORGANISMS_NOTE = "Models named tiny-… are model organisms."


def paper_style() -> AbstractContextManager:
    """Return a context in which everything is drawn in the one style."""
    from matplotlib import pyplot

    return pyplot.style.context(STYLE)


def model_style(models: list[str]) -> dict:
    """Return what seaborn takes to give each model a colour, a marker and a dash of its own."""
    turns = {model: divmod(number, len(PALETTE)) for number, model in enumerate(models)}
    return {
        "hue": "model",
        "style": "model",
        "palette": {model: PALETTE[place] for model, (_, place) in turns.items()},
        "markers": {model: MARKERS[place] for model, (_, place) in turns.items()},
        "dashes": {model: DASHES[turn % len(DASHES)] for model, (turn, _) in turns.items()},
        "markeredgewidth": 0,
    }


def title_of(data: pandas.DataFrame) -> str:
    """Return the print name of the one model in a figure's data."""
    seeds = int(data["seeds"].iloc[0]) if "seeds" in data else 1
    return data["model"].iloc[0] + f" ({seeds} seeds)" * (seeds > 1)


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches, as the current one of pyplot; nothing in it may overlap."""
    from matplotlib import pyplot

    return _laid_out(pyplot.figure(figsize=(width, height)))


def draw_models(
    data: pandas.DataFrame, draw: Callable, *, alone: tuple[float, float], among: tuple[float, float], **options
) -> "Figure":
    """Draw a panel for each model: of one size in inches where it is `alone`, of another `among` others, three abreast.

    Further options are those of `draw_facets`.
    """
    one = data["model"].nunique() == 1
    return draw_facets(data, draw, size=alone if one else among, col="model", col_wrap=1 if one else 3, **options)


def draw_facets(
    data: pandas.DataFrame,
    draw: Callable[["Axes", pandas.DataFrame], None],
    *,
    size: tuple[float, float],
    x: str,
    y: str,
    note: str = "",
    **options,
) -> "Figure":
    """Draw a panel for each facet of the data, in seaborn's grid.

    Parameters
    ----------
    data : DataFrame
        The plotted data, with a column `model`.
    draw : callable
        Takes a panel and its rows of the data.
    size : (float, float)
        Width and height of a panel, in inches.
    x, y : str
        The labels of all x axes together, and of all y axes.
    note : str
        What a reader has to know beside the legend.
    **options
        Of `seaborn.FacetGrid`: `col`, `col_wrap`, `row`, `sharex`, `sharey`.
    """
    import seaborn

    width, height = size
    grid = seaborn.FacetGrid(data, height=height, aspect=width / height, despine=False, **options)
    grid.set_titles("", row_template="", col_template="")
    for (row, column, _), rows in grid.facet_data():
        axis = grid.facet_axis(row, column, modify_state=False)
        if len(rows):
            draw(axis, rows)
        else:
            axis.set_axis_off()
    grid.set(xlabel="", ylabel="")
    figure = _laid_out(grid.figure)
    figure.supylabel(y)
    figure.set_size_inches(*(figure.get_size_inches() + (0.3, 0.7)))
    add_legend(figure)
    add_caption(figure, data, x, note)
    return figure


def add_legend(figure: "Figure") -> None:
    """Name each style once, above all panels, in as many rows as the width needs."""
    labels = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            labels.setdefault(label, handle)
        if axis.get_legend():
            axis.get_legend().remove()
    for rows in range(1, len(labels) + 1):
        columns = -(-len(labels) // rows)
        legend = figure.legend(labels.values(), labels.keys(), ncols=columns, loc="outside upper center")
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def add_caption(figure: "Figure", data: pandas.DataFrame, x: str = "", note: str = "") -> None:
    """Write the label of all x axes below the panels, and below it a note in small print, which names organisms."""
    from matplotlib.patches import Rectangle

    organisms = ORGANISMS_NOTE if data["model"].map(is_organism).any() else ""
    # A letter of small print is half as wide as it is high, or a little more; there are 72 points to an inch.
    text = wrap(f"{note} {organisms}".strip(), int(72 * figure.get_figwidth() / (0.56 * NOTE_SIZE)))
    nothing = Rectangle((0, 0), 0, 0, alpha=0)
    # As a legend, since the layout makes room for several lines of those only.
    style = {"loc": "outside lower center", "handlelength": 0, "handletextpad": 0, "fontsize": NOTE_SIZE}
    legend = figure.legend([nothing], [text], title=x or None, title_fontsize=8, **style)
    legend.get_texts()[0].set_multialignment("center")


def wrap(text: str, width: int) -> str:
    """Break a text into as few lines as possible, and these into equal ones."""
    lines = len(textwrap.wrap(text, width))
    widths = (narrow for narrow in range(1, width + 1) if len(textwrap.wrap(text, narrow)) <= lines)
    return textwrap.fill(text, next(widths, width), break_long_words=False)


def _laid_out(figure: "Figure") -> "Figure":
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
    return figure
