"""Figure 4, the framework of LLM-VA, drawn from the boxes and arrows of `framework.yaml`; it needs no results."""

import pathlib

import numpy
import pandas
import yaml
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path

from llmva.paper.figures import style

PARTS = yaml.safe_load(pathlib.Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
BOXES, ARROWS = PARTS["boxes"], PARTS["arrows"]
# Inches, from the lower left corner of the drawing.
SIZE, BOX, CARD, BAR_WIDTH = (7.2, 3.4), (1.42, 1.2), (0.5, 0.2), 0.085
COLUMNS, ROWS = [0.04 + number * 1.9 for number in range(4)], {"upper": 1.7, "lower": 0.04}
BOX_STYLE = {"boxstyle": "round,pad=0,rounding_size=0.07", "facecolor": "#F4F6F8", "edgecolor": "#4A4A4A"}
ARROW_STYLE = {"arrowstyle": "-|>", "mutation_scale": 8, "linewidth": 1.1, "joinstyle": "miter"}
BACKGROUND = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}


def list_parts(_: None) -> pandas.DataFrame:
    """Return what is drawn: boxes with their name, arrows with their words and both ends."""
    boxes = [("box", box["title"], "", "") for box in BOXES.values()]
    arrows = [("arrow", arrow["words"], *(BOXES[arrow[end]]["title"] for end in ("from", "to"))) for arrow in ARROWS]
    table = pandas.DataFrame([*boxes, *arrows], columns=["kind", "name", "from", "to"])
    return table.map(lambda text: text.replace("\n", " ").replace("$", ""))


def draw_framework(_: pandas.DataFrame) -> Figure:
    """Draw the loop of the framework in two rows: measure and fit above, edit and choose below."""
    figure = style.new_figure(*SIZE)
    figure.get_layout_engine().set(w_pad=0, h_pad=0)
    axis = figure.add_subplot()
    axis.set(xlim=(0, SIZE[0]), ylim=(0, SIZE[1]), aspect="equal")
    axis.set_axis_off()
    for arrow in ARROWS:
        _draw_flow(axis, arrow)
    for box in BOXES.values():
        _draw_box(axis, box)
    return figure


def _draw_flow(axis, arrow: dict) -> None:
    """Draw an arrow between two boxes, with its words above or upon it."""
    start, end = (_edge(arrow[name], side) for name, side in zip(("from", "to"), arrow["sides"], strict=True))
    way, place = [start, end], numpy.mean([start, end], axis=0)
    if "rail" in arrow:
        across = end[0] + arrow["shift"]
        way = [start, (start[0], arrow["rail"]), (across, arrow["rail"]), (across, end[1])]
        place[1] = arrow["rail"]
    elif "right" in arrow["sides"]:
        place[1] += 0.07 + 0.06 * len(arrow["words"].splitlines())
    color = _color(arrow.get("color", "black"))
    axis.add_patch(FancyArrowPatch(path=Path(way), shrinkA=0, shrinkB=0, color=color, **ARROW_STYLE))
    _draw_text(axis, place, (0, 0), arrow["words"], bbox=BACKGROUND, linespacing=1.2, color=color)


def _draw_box(axis, box: dict) -> None:
    left, bottom = _corner(box)
    middle = numpy.array((left + BOX[0] / 2, bottom))
    axis.add_patch(FancyBboxPatch((left, bottom), *BOX, linewidth=0.8, **BOX_STYLE))
    _draw_text(axis, middle, (0, BOX[1] - 0.07), box["title"], va="top", fontsize=7.5, fontweight="bold")
    _draw_text(axis, middle, (0, 0.06), box["caption"], va="bottom", linespacing=1.25)
    for part in box["icon"]:
        look = {name: value for name, value in part.items() if name != "shape"}
        if "color" in look:
            look["color"] = _color(look["color"])
        SHAPES[part["shape"]](axis, middle + (0, 0.68), **look)


def _edge(name: str, side: str) -> tuple[float, float]:
    (left, bottom), (width, height) = _corner(BOXES[name]), BOX
    across = {"left": left, "right": left + width}.get(side, left + width / 2)
    return across, {"top": bottom + height, "bottom": bottom}.get(side, bottom + height / 2)


def _corner(box: dict) -> tuple[float, float]:
    column, row = box["place"]
    return COLUMNS[column], ROWS[row]


def _color(name: str) -> str:
    return getattr(style, name, name)


def _draw_text(axis, middle, at: tuple[float, float], text: str, **look) -> None:
    axis.text(middle[0] + at[0], middle[1] + at[1], text, **{"ha": "center", "va": "center", "fontsize": 6.5, **look})


def _draw_line(axis, middle, points: list, **look) -> None:
    axis.plot(*(middle + points).T, **look)


def _draw_arrow(axis, middle, start: list, reach: list, **look) -> None:
    axis.annotate("", middle + start + reach, middle + start, arrowprops=look)


def _draw_cards(axis, middle, shift: float, color: str) -> None:
    for step in (0.08, 0.04, 0.0):
        corner = middle[0] + shift + step - 0.26, middle[1] - 0.12 + step
        axis.add_patch(Rectangle(corner, *CARD, linewidth=0.7, facecolor="white", edgecolor=color))


def _draw_bars(axis, middle, bottom: float, heights: list, filled: list) -> None:
    """Draw the sublayers as a row of bars, attention and MLP by turns."""
    for number, height in enumerate(heights):
        color = (style.BLUE, style.ORANGE)[number % 2]
        corner, face = middle + (number * 0.12 - 0.585, bottom), color if number in filled else "white"
        axis.add_patch(Rectangle(corner, BAR_WIDTH, height, linewidth=0.7, facecolor=face, edgecolor=color))


def _draw_curve(axis, middle, **look) -> None:
    """Draw a curve of validation F1 by iteration, with its highest point marked."""
    steps = numpy.linspace(0, 1, 40)
    curve = 0.3 * (1 - numpy.exp(-5 * steps)) - 0.13 * steps**4
    across, up = middle[0] - 0.46 + 0.92 * steps, middle[1] - 0.15 + curve
    axis.plot(across, up, **look)
    best = curve.argmax()
    axis.plot(across[best], up[best], marker="o", markersize=5, markerfacecolor="none", color="black")


SHAPES = {
    "text": _draw_text,
    "line": _draw_line,
    "arrow": _draw_arrow,
    "cards": _draw_cards,
    "bars": _draw_bars,
    "curve": _draw_curve,
}
