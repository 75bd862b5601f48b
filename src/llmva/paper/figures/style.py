"""One style for every figure: colours, markers, a panel for each facet, legends and notes.

A notebook's plot looks the same inside `with paper_style():`.
"""

import textwrap
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import pandas
import seaborn
import yaml
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from llmva.core.vocabulary import OUR_LOOP, PAPER_LOOP
from llmva.paper.names import name_kinds

# By figure: labels, notes, and what is measured.
WORDS = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#A24A80", "#E69F00", "#56B4E9"
GREY, PALE_GREY = "#8A8A8A", "#B5BCC4"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS, DASHES = ("o", "s", "^", "D", "v", "p"), ("", (4, 1.5), (1, 1), (3, 1.25, 1.5, 1.25))
OTHERS = "Other methods"
METHOD_COLORS = {PAPER_LOOP: BLUE, OUR_LOOP: VERMILLION, OTHERS: PALE_GREY}
KINDS = {"attention": "Attention", "mlp": "MLP"}
CHOSEN_MARK = {"color": "black", "marker": "o", "markersize": 6, "markerfacecolor": "none", "markeredgewidth": 1}
CHOSEN_MARK |= {"linestyle": "none"}
STOP_MARK = {"color": "black", "marker": "X", "markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.5}
STOP_MARK |= {"linestyle": "none", "zorder": 3, "clip_on": False}
NOTE_SIZE = 6.5
ORGANISMS_NOTE = "Models named {kinds} are model organisms."


def paper_style() -> AbstractContextManager:
    """Return a context in which everything is drawn in the one style."""
    return pyplot.style.context(Path(__file__).with_name("paper.mplstyle"))


def line_style(column: str, names: Iterable[str]) -> dict:
    """Return what seaborn takes to give each name in a column a colour and a marker, and each round of six a dash."""
    turns = {name: divmod(number, len(PALETTE)) for number, name in enumerate(names)}
    return {
        "hue": column,
        "style": column,
        "palette": {name: PALETTE[place] for name, (_, place) in turns.items()},
        "markers": {name: MARKERS[place] for name, (_, place) in turns.items()},
        "dashes": {name: DASHES[turn % len(DASHES)] for name, (turn, _) in turns.items()},
        "markeredgewidth": 0,
    }


def draw_kinds(axis, rows: pandas.DataFrame, x: str, y: str) -> None:
    """Draw a line for attention and one for MLP by layer."""
    named, style = rows.assign(kind=rows["kind"].map(KINDS)), line_style("kind", KINDS.values())
    # Attention has a full line, MLP a broken one.
    style["dashes"] = dict(zip(KINDS.values(), DASHES, strict=False))
    seaborn.lineplot(named, x=x, y=y, ax=axis, **style)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def title_of(data: pandas.DataFrame) -> str:
    """Return the print name of the one model in a figure's data."""
    seeds = int(data["seeds"].iloc[0]) if "seeds" in data else 1
    return data["model"].iloc[0] + f" ({seeds} seeds)" * (seeds > 1)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, as the current one of pyplot; nothing in it may overlap."""
    return _laid_out(pyplot.figure(figsize=(width, height)))


def draw_models(data: pandas.DataFrame, draw: Callable, *, alone: tuple, among: tuple, **options) -> Figure:
    """Draw a panel for each model, of one size where it is `alone`, of another `among` others; as `draw_facets`."""
    one = data["model"].nunique() == 1
    return draw_facets(data, draw, size=alone if one else among, col="model", col_wrap=1 if one else 3, **options)


def draw_facets(
    data: pandas.DataFrame,
    draw: Callable,
    *,
    size: tuple[float, float],
    x: str,
    y: str = "",
    rows: Iterable[str] = (),
    note: str = "",
    **options,
) -> Figure:
    """Draw a panel for each facet of the data, by a function of its axes and rows, in seaborn's grid.

    The size of a panel is in inches. `x` and `y` label all axes together, `rows` each row of panels; `note` is what a
    reader has to know beside the legend. Further options are those of `seaborn.FacetGrid`.
    """
    grid = _Grid(data, height=size[1], aspect=size[0] / size[1], despine=False, **options)
    grid.set_titles("", row_template="", col_template="")
    for (row, column, _), shown in grid.facet_data():
        axis = grid.facet_axis(row, column, modify_state=False)
        if len(shown):
            draw(axis, shown)
        else:
            axis.set_axis_off()
    grid.set(xlabel="", ylabel="")
    for label, axes in zip(rows, grid.axes, strict=False):
        axes[0].set_ylabel(label)
    figure = _laid_out(grid.figure)
    figure.supylabel(y)
    figure.set_size_inches(*(figure.get_size_inches() + (0.3, 0.7)))
    add_legend(figure, data, x, note)
    return figure


def add_legend(figure: Figure, data: pandas.DataFrame, x: str = "", note: str = "") -> None:
    """Name each style once, above all panels; below them, write the label of all x axes and a note in small print."""
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
            break
        legend.remove()
    kinds = name_kinds(data["model"])
    organisms = ORGANISMS_NOTE.format(kinds=kinds) if kinds else ""
    # A letter of small print is half as wide as it is high, or a little more; there are 72 points to an inch.
    text = wrap(f"{note} {organisms}".strip(), int(72 * figure.get_figwidth() / (0.56 * NOTE_SIZE)))
    # A legend too, since the layout makes room for several lines of those only.
    style = {"loc": "outside lower center", "handlelength": 0, "handletextpad": 0, "fontsize": NOTE_SIZE}
    caption = figure.legend([Rectangle((0, 0), 0, 0, alpha=0)], [text], title=x or None, title_fontsize=8, **style)
    caption.get_texts()[0].set_multialignment("center")


def wrap(text: str, width: int) -> str:
    """Break a text into as few lines as possible, and these into equal ones."""
    lines = len(textwrap.wrap(text, width))
    widths = (narrow for narrow in range(1, width + 1) if len(textwrap.wrap(text, narrow)) <= lines)
    return textwrap.fill(text, next(widths, width), break_long_words=False)


class _Grid(seaborn.FacetGrid):
    """A grid whose layout is found once, when all is drawn in it."""

    def tight_layout(self, *_, **__) -> "_Grid":
        return self


def _laid_out(figure: Figure) -> Figure:
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
    return figure
