"""Figure 4, the framework of LLM-VA, drawn from a list of boxes and arrows; it needs no results."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy
import pandas
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path

from llmva.paper.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILLION, new_figure

# Inches, from the lower left corner of the drawing.
SIZE, BOX = (7.2, 3.4), (1.42, 1.2)
COLUMNS = [0.04 + number * 1.9 for number in range(4)]
ROWS = {"upper": 1.7, "lower": 0.04}
RAILS = {"labels": 3.32, "outputs": 3.1}
BOX_STYLE = {"boxstyle": "round,pad=0,rounding_size=0.07", "facecolor": "#F4F6F8", "edgecolor": "#4A4A4A"}
ARROWHEAD = {"arrowstyle": "-|>,head_length=0.3,head_width=0.14", "linewidth": 1.0, "color": "black", "shrinkA": 0}
ARROWHEAD |= {"shrinkB": 0}


class Box(NamedTuple):
    """A step of the framework: what it says, its column and row, and the small drawing in it."""

    title: str
    caption: str
    column: int
    row: str
    icon: Callable

    def edge(self, side: str) -> tuple[float, float]:
        """Return the middle of a side, in inches."""
        left, bottom, (width, height) = COLUMNS[self.column], ROWS[self.row], BOX
        across = {"left": left, "right": left + width}.get(side, left + width / 2)
        return across, {"top": bottom + height, "bottom": bottom}.get(side, bottom + height / 2)


class Arrow(NamedTuple):
    """What goes from one step to another: its words, its way in inches, and where the words stand."""

    start: str
    end: str
    words: str
    way: tuple[tuple[float, float], ...]
    place: tuple[float, float]
    color: str = "black"


def list_parts(_: pandas.DataFrame | None = None) -> pandas.DataFrame:
    """Return what is drawn: boxes with their name, arrows with their words and both ends."""
    boxes = [("box", box.title, "", "") for box in BOXES.values()]
    arrows = [("arrow", arrow.words, BOXES[arrow.start].title, BOXES[arrow.end].title) for arrow in ARROWS]
    table = pandas.DataFrame([*boxes, *arrows], columns=["kind", "name", "from", "to"])
    return table.map(lambda text: text.replace("\n", " ").replace("$", ""))


def draw_framework(_: pandas.DataFrame) -> Figure:
    """Draw the loop of the framework in two rows: measure and fit above, edit and choose below."""
    figure = new_figure(*SIZE)
    figure.get_layout_engine().set(w_pad=0, h_pad=0)
    axis = figure.add_subplot()
    axis.set(xlim=(0, SIZE[0]), ylim=(0, SIZE[1]), aspect="equal")
    axis.set_axis_off()
    for arrow in ARROWS:
        style = {"arrowstyle": "-|>", "mutation_scale": 8, "linewidth": 1.1, "joinstyle": "miter"}
        axis.add_patch(FancyArrowPatch(path=Path(arrow.way), shrinkA=0, shrinkB=0, color=arrow.color, **style))
        background = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        _write(axis, *arrow.place, arrow.words, bbox=background, linespacing=1.2, color=arrow.color)
    for box in BOXES.values():
        (middle, bottom), (_, top) = box.edge("bottom"), box.edge("top")
        axis.add_patch(FancyBboxPatch((COLUMNS[box.column], bottom), *BOX, linewidth=0.8, **BOX_STYLE))
        _write(axis, middle, top - 0.07, box.title, va="top", fontsize=7.5, fontweight="bold")
        _write(axis, middle, bottom + 0.06, box.caption, va="bottom", linespacing=1.25)
        box.icon(axis, middle, bottom + 0.68)
    return figure


def _write(axis, x: float, y: float, text: str, **style) -> None:
    axis.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": 6.5, **style})


def _draw_prompts(axis, x: float, y: float) -> None:
    for shift, color, name in ((-0.34, BLUE, "benign"), (0.34, VERMILLION, "toxic")):
        for step in (0.08, 0.04, 0.0):
            _draw_rectangle(axis, x + shift + step - 0.26, y - 0.12 + step, 0.5, 0.2, "white", color)
        _write(axis, x + shift - 0.01, y - 0.025, name, color=color)


def _draw_model(axis, x: float, y: float) -> None:
    _draw_sublayers(axis, x, y, filled=range(10))
    for shift, color, name in ((-0.52, BLUE, "attention"), (0.18, ORANGE, "MLP")):
        axis.plot(x + shift, y - 0.25, marker="s", markersize=4, color=color)
        _write(axis, x + shift + 0.07, y - 0.255, name, ha="left")


def _draw_edited_model(axis, x: float, y: float) -> None:
    _draw_sublayers(axis, x, y, filled=(2, 4, 5, 7, 8))


def _draw_sublayers(axis, x: float, y: float, filled: Sequence[int]) -> None:
    _draw_bars(axis, x, y - 0.14, [0.28] * 10, filled)
    axis.plot([x - 0.66, x - 0.585], [y, y], color="black", linewidth=0.8)
    axis.annotate("", (x + 0.69, y), (x + 0.57, y), arrowprops={"arrowstyle": "->", "linewidth": 0.8})


def _draw_scores(axis, x: float, y: float) -> None:
    _draw_bars(axis, x, y - 0.17, (0.05, 0.08, 0.27, 0.11, 0.3, 0.25, 0.1, 0.34, 0.24, 0.06), filled=(2, 4, 5, 7, 8))
    axis.plot([x - 0.66, x + 0.66], [y + 0.03, y + 0.03], color="black", linewidth=0.7, linestyle="--")


def _draw_bars(axis, x: float, bottom: float, heights: Sequence[float], filled: Sequence[int]) -> None:
    """Draw the sublayers as a row of bars, attention and MLP by turns."""
    for number, height in enumerate(heights):
        color = (BLUE, ORANGE)[number % 2]
        face = color if number in filled else "white"
        _draw_rectangle(axis, x - 0.585 + number * 0.12, bottom, 0.085, height, face, color)


def _draw_verdicts(axis, x: float, y: float) -> None:
    for number, (name, color) in enumerate((("answered", GREEN), ("refused", PURPLE), ("degenerate", GREY))):
        height = y + 0.15 - number * 0.155
        axis.plot(x - 0.36, height, marker="os^"[number], color=color, markersize=4)
        _write(axis, x - 0.25, height - 0.005, name, ha="left")


def _draw_machines(axis, x: float, y: float) -> None:
    """Draw two clouds of points with the hyperplane between them and its normal, the control vector."""
    spread = numpy.array([(-0.05, 0.06), (0.03, -0.05), (-0.06, -0.05), (0.05, 0.05)])
    machines = ((-0.36, (VERMILLION, BLUE), "$v_b$", (0.8, 0.6)), (0.36, (PURPLE, GREEN), "$v_a$", (-0.6, 0.8)))
    for shift, colors, name, normal in machines:
        center, normal = numpy.array((x + shift, y - 0.05)), numpy.array(normal)
        for side, color, marker in zip((-1, 1), colors, ("s", "o"), strict=True):
            points = center + side * 0.15 * normal + 0.75 * spread
            axis.plot(*points.T, marker=marker, markersize=1.9, color=color, linestyle="none")
        across = 0.22 * numpy.array((-normal[1], normal[0]))
        axis.plot(*numpy.column_stack([center - across, center + across]), color=GREY, linewidth=0.8, linestyle="--")
        axis.annotate("", center + 0.29 * normal, center, arrowprops=ARROWHEAD)
        _write(axis, *(center + 0.36 * normal), name, fontsize=7)


def _draw_edit(axis, x: float, y: float) -> None:
    """Draw the two vectors before the edit, at a right angle, and after it, in one direction."""
    for shift, answer in ((-0.48, (-0.1, 0.3)), (0.22, (0.24, 0.17))):
        start = numpy.array((x + shift, y - 0.13))
        for tip, name, color in (((0.3, 0.1), "$v_b$", BLUE), (answer, "$v_a$", GREEN)):
            tip = numpy.array(tip)
            axis.annotate("", start + tip, start, arrowprops=ARROWHEAD | {"color": color})
            place = start + 1.22 * tip + ((0.02, -0.01) if name == "$v_b$" else (0.0, 0.03))
            _write(axis, *place, name, fontsize=7, color=color)
    axis.annotate("", (x + 0.17, y - 0.08), (x - 0.03, y - 0.08), arrowprops={"arrowstyle": "->", "linewidth": 0.8})


def _draw_choice(axis, x: float, y: float) -> None:
    """Draw a curve of validation F1 by iteration, with its highest point marked."""
    steps, left, bottom = numpy.linspace(0, 1, 40), x - 0.5, y - 0.17
    curve = 0.3 * (1 - numpy.exp(-5 * steps)) - 0.13 * steps**4
    axis.plot([left, left, left + 1], [bottom + 0.34, bottom, bottom], color="black", linewidth=0.7)
    across, up = left + 0.04 + 0.92 * steps, bottom + 0.02 + curve
    axis.plot(across, up, color=BLUE, linewidth=1.2)
    best = curve.argmax()
    axis.plot(across[best], up[best], marker="o", markersize=5, markerfacecolor="none", color="black")


def _draw_rectangle(axis, left: float, bottom: float, width: float, height: float, face: str, edge: str) -> None:
    axis.add_patch(Rectangle((left, bottom), width, height, linewidth=0.7, facecolor=face, edgecolor=edge))


SAMPLE = "a fresh sample of the\ntraining set each time"
OUTPUTS = "outputs of all attention and\nMLP sublayers, same prefill"
EDIT = "rank one, no training:\n$W \\leftarrow W + v_a (s\\,v_b - v_a)^T W$"
SCORE = "influence × accuracy; the\nbest $L_{select}$ sublayers"
EDITED = "filled: edited sublayers,\no_proj and down_proj"
VECTORS = "benign and answer vectors\nof every sublayer"
BOXES = {
    "prompts": Box("Prompts", SAMPLE, 0, "upper", _draw_prompts),
    "model": Box("Model responds", OUTPUTS, 1, "upper", _draw_model),
    "judge": Box("Judge", "one guard model\nfor both failures", 2, "upper", _draw_verdicts),
    "vectors": Box("Linear SVMs", VECTORS, 3, "upper", _draw_machines),
    "score": Box("Score and select", SCORE, 3, "lower", _draw_scores),
    "edit": Box("Closed-form edit", EDIT, 2, "lower", _draw_edit),
    "edited": Box("Edited model", EDITED, 1, "lower", _draw_edited_model),
    "choice": Box("Validation", "strict F1 picks the\niteration that is kept", 0, "lower", _draw_choice),
}


def _join(start: str, end: str, words: str, sides: tuple[str, str], color: str = "black") -> Arrow:
    way = BOXES[start].edge(sides[0]), BOXES[end].edge(sides[1])
    # Beside a row's arrow the words stand above it; on a short arrow between the rows, in its middle.
    above = 0.07 + 0.06 * len(words.splitlines()) if "right" in sides else 0
    return Arrow(start, end, words, way, tuple(numpy.mean(way, axis=0) + (0, above)), color)


def _join_above(start: str, end: str, words: str, rail: str, shift: float) -> Arrow:
    """Return an arrow that leaves a box at its top, runs above the row, and comes down on another box."""
    (left, top), (right, _), height = BOXES[start].edge("top"), BOXES[end].edge("top"), RAILS[rail]
    way = (left, top), (left, height), (right + shift, height), (right + shift, top)
    return Arrow(start, end, words, way, ((left + right) / 2, height))


FORWARD, BACK = ("right", "left"), ("left", "right")
ARROWS = [
    _join("prompts", "model", "chat\nprompts", FORWARD),
    _join("model", "judge", "replies", FORWARD),
    _join("judge", "vectors", "verdicts", FORWARD),
    _join_above("prompts", "vectors", "labels of the prompts: benign or toxic", "labels", 0.25),
    _join_above("model", "vectors", "sublayer outputs at the last prompt token", "outputs", -0.25),
    _join("vectors", "score", "$v_b$, $v_a$, accuracy", ("bottom", "top")),
    _join("score", "edit", "chosen", BACK),
    _join("edit", "edited", "rank-1\nedits", BACK),
    _join("edited", "model", "next iteration, up to $T$", ("top", "bottom"), color=VERMILLION),
    _join("edited", "choice", "each\niteration", BACK),
]
