"""How a figure is made: from which results, and as blocks of panels, one per model, or as one drawing."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("paper.mplstyle")
NOTE_SIZE = 6.5


@dataclass(frozen=True, kw_only=True)
class Design:
    """What all figures have.

    Attributes
    ----------
    source : str
        The item whose results it draws; empty for a drawing without data.
    tidy : callable
        Long results to the plotted data, with a column `model`.
    draw : callable
        Plotted data to a figure, for a drawing of all models at once.
    most : int, optional
        Only so many models are drawn, the first ones, and no files of single models.
    panels : bool
        Whether each model has files of its own as well.
    averaged : bool
        Whether several seeds of a model become one, their mean.
    means : bool
        Whether it shows means over models, so that organisms and real models need a figure each.
    optional : bool
        Its metrics may be missing, and then it is no part of `all`.
    """

    source: str
    tidy: Callable[[pandas.DataFrame], pandas.DataFrame]
    draw: Callable
    most: int | None = None
    panels: bool = True
    averaged: bool = True
    means: bool = False
    optional: bool = False

    def compose(self, data: pandas.DataFrame) -> "Figure":
        """Draw the plotted data, in the one style."""
        from matplotlib import pyplot

        with pyplot.style.context(STYLE):
            return self.draw(data)


@dataclass(frozen=True, kw_only=True)
class Blocks(Design):
    """A block of panels for each model, in a grid; `draw` takes one model's axes and plotted data.

    Attributes
    ----------
    x : str
        The label of all x axes.
    y : str or tuple of str
        The label of all y axes, or one for each panel of a block.
    alone, together : (int, int)
        Rows and columns of one model's panels, in a figure of its own and among other models.
    abreast : int
        Models side by side in the combined figure.
    size, size_alone : (float, float)
        Width and height of a panel in inches, among other models and in a figure of its own.
    shared : bool
        Panels at the same place of every block have one y scale.
    one_scale : bool
        All panels have one y scale, written at the left end of a row.
    note : str
        What a reader has to know beside the legend.
    """

    x: str
    y: str | tuple[str, ...]
    alone: tuple[int, int] = (1, 1)
    together: tuple[int, int] = (1, 1)
    abreast: int = 3
    size: tuple[float, float] = (2.3, 1.7)
    size_alone: tuple[float, float] = (3.4, 2.2)
    shared: bool = False
    one_scale: bool = False
    note: str = ""

    def compose(self, data: pandas.DataFrame) -> "Figure":
        """Draw each model's block, in the order of the data, in the one style."""
        from matplotlib import pyplot

        models = list(data["model"].unique())
        alone = len(models) == 1
        rows, columns = self.alone if alone else self.together
        width, height = self.size_alone if alone else self.size
        abreast = min(self.abreast, len(models))
        down = -(-len(models) // abreast)
        with pyplot.style.context(STYLE):
            figure = new_figure(columns * abreast * width + 0.4, rows * down * height + 0.6 + 0.25 * bool(self.note))
            grid = figure.add_gridspec(rows * down, columns * abreast)
            blocks = []
            for place, model in enumerate(models):
                corner = rows * (place // abreast), columns * (place % abreast)
                blocks.append(self._add_block(figure, grid, corner, (rows, columns), blocks[:1]))
                self.draw(blocks[-1], data[data["model"] == model])
            self._finish(figure)
        return figure

    def _add_block(self, figure: "Figure", grid, corner: tuple[int, int], shape: tuple[int, int], first: list) -> list:
        (top, left), (rows, columns) = corner, shape
        block = []
        for place in range(rows * columns):
            row, column = top + place // columns, left + place % columns
            axis = figure.add_subplot(grid[row, column], sharey=self._leader(first[0] if first else block, place))
            outer = column == 0 if self.one_scale else left == 0 or not self.shared
            axis.tick_params(labelleft=outer)
            if outer and isinstance(self.y, tuple):
                axis.set_ylabel(self.y[place])
            block.append(axis)
        return block

    def _leader(self, block: list, place: int):
        """Return the panel, in the first block as it is by now, whose y scale a panel takes over, if there is one."""
        leaders = block[:1] if self.one_scale else block[place : place + 1] if self.shared else []
        return leaders[0] if leaders else None

    def _finish(self, figure: "Figure") -> None:
        axes = figure.axes
        for axis in axes:
            if not axis.has_data():
                axis.set_axis_off()
        if len(axes) == 1:
            axes[0].set(xlabel=self.x, ylabel=self.y)
        else:
            figure.supxlabel(self.x)
            if isinstance(self.y, str):
                figure.supylabel(self.y)
        add_legend(figure, self.note)


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches, as the current one of pyplot; nothing in it may overlap."""
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
    return figure


def add_legend(figure: "Figure", note: str = "") -> None:
    """Name each style once, above all panels, in as many rows as the width needs, below a note in small print."""
    labels = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            labels.setdefault(label, handle)
    style = {"loc": "outside upper center", "title": _wrapped(note, figure.get_figwidth()), "title_fontsize": NOTE_SIZE}
    for rows in range(1, len(labels) + 1):
        columns = -(-len(labels) // rows)
        legend = figure.legend(labels.values(), labels.keys(), ncols=columns, **style)
        legend.get_title().set_multialignment("center")
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def _wrapped(note: str, width: float) -> str | None:
    # A letter of small print is half as wide as it is high, or a little more; there are 72 points to an inch.
    return textwrap.fill(note, int(72 * width / (0.56 * NOTE_SIZE))) or None
