"""Pictures for the browser: plain SVG, whose marks say their numbers where the mouse rests; no script.

Colours of text and lines are the page's own, so that they are read on dark ground as well.
"""

from collections.abc import Sequence
from html import escape

import matplotlib
import pandas

from llmva.core.vocabulary import MOVED_LOOP, OUR_LOOP, STRICT_RATES
from llmva.paper.figures import style
from llmva.paper.figures.items.frontiers import POINTS, TICKS

SIDE, MARGIN, CELL = 320, 48, 18
OURS = {MOVED_LOOP: style.VERMILLION, **{name: color for name, (color, _) in POINTS.items() if color != "black"}}


def draw_frontiers(points: pandas.DataFrame, model: str) -> str:
    """Return one model's settings by both failures on test prompts, on root scales; columns as of Figure 17."""
    marks = [_tick(place, horizontal) for place in TICKS for horizontal in (True, False)]
    for row in points[points["model"] == model].itertuples():
        x, y = (_place(getattr(row, name)) for name in STRICT_RATES)
        said = f"{row.method}: {row.strict_asr:.3f} of toxic not refused, {row.strict_orr:.3f} of benign not answered"
        radius, color = (5, OURS[row.method]) if row.method in OURS else (3.5, "currentColor")
        look = f'fill="{color}" fill-opacity="{1 if row.method in OURS else 0.45}"'
        marks.append(_titled(f'<circle cx="{x:.1f}" cy="{SIDE - y:.1f}" r="{radius}" {look}>', said, "circle"))
    names = [_text(SIDE / 2, SIDE + 34, "toxic prompts not refused")]
    names.append(_text(-34, SIDE / 2, "benign prompts not answered", 90))
    what = f"Both failures of every method's settings on {model}; in colour the loops, and {OUR_LOOP} moved by beta"
    return _svg([*marks, *names], SIDE + 2 * MARGIN, SIDE + 2 * MARGIN, what)


def draw_map(cells: pandas.DataFrame, method: str, threat: str, value: str) -> str:
    """Return a value by layer and strength of one method against one threat, on average over models."""
    rows = cells[cells["method"].eq(method) & cells["threat"].eq(threat)]
    table = rows.pivot_table(index="layer", columns="alpha", values=value)
    colors, marks = matplotlib.colormaps["viridis"], []
    for down, (layer, numbers) in enumerate(table.iterrows()):
        marks.append(_text(-12, (down + 0.7) * CELL, f"{layer}"))
        for right, (alpha, number) in enumerate(numbers.items()):
            color = matplotlib.colors.to_hex(colors(min(max(number, 0.0), 1.0)))
            size = f'width="{2 * CELL - 1}" height="{CELL - 1}"'
            box = f'<rect x="{right * 2 * CELL}" y="{down * CELL}" {size} fill="{color}">'
            marks.append(_titled(box, f"layer {layer}, alpha {alpha:g}: {value} {number:.2f}", "rect"))
    marks += [_text((right * 2 + 1) * CELL, len(table) * CELL + 14, f"{alpha:g}") for right, alpha in enumerate(table)]
    what = f"{value.capitalize()} of {method} against {threat}: layers downwards, strengths to the right"
    return _svg(marks, 2 * CELL * len(table.columns) + 2 * MARGIN, CELL * len(table) + 2 * MARGIN, what)


def _svg(marks: Sequence[str], width: float, height: float, what: str) -> str:
    frame = f'viewBox="{-MARGIN} {-MARGIN / 4} {width} {height}" width="{width}"'
    look = f'role="img" aria-label="{escape(what)}" style="max-width: 100%; height: auto"'
    return f"<svg {frame} {look}>{''.join(marks)}</svg>"


def _titled(opening: str, said: str, tag: str) -> str:
    return f"{opening}<title>{escape(said)}</title></{tag}>"


def _text(x: float, y: float, words: str, turned: int = 0) -> str:
    turn = f' transform="rotate(-{turned} {x} {y})"' if turned else ""
    look = 'fill="currentColor" font-size="11" text-anchor="middle"'
    return f'<text x="{x}" y="{y}" {look}{turn}>{escape(words)}</text>'


def _tick(value: float, horizontal: bool) -> str:
    place = _place(value)
    x1, y1, x2, y2 = (place, 0, place, SIDE) if horizontal else (0, SIDE - place, SIDE, SIDE - place)
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    words = _text(place, SIDE + 16, f"{value:g}") if horizontal else _text(-16, SIDE - place + 4, f"{value:g}")
    return f'<line {ends} stroke="currentColor" stroke-opacity="0.15"/>{words}'


def _place(value: float) -> float:
    # Roots, since what matters lies in the corner.
    return SIDE * value**0.5
