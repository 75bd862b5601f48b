"""How a cell looks in print: a column's name, the form of its numbers, and which end of it is the better one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import pandas

MARKS = {"yes": "✓", "no": "✗"}
ARROWS = {"low": " ↓", "high": " ↑", "": ""}
# How a cell is joined, and the ends of the columns' names that it is joined of.
VALUE, INTERVAL, SPREAD = ("{}", ("",)), ("{} [{}, {}]", ("", "_low", "_high")), ("{} / {}", ("_sd", "_worst"))


@dataclass(frozen=True)
class Column:
    """How a column of a frame is printed: under which name, in which form, and as which parts of a cell.

    The `better` end is `low` or `high`, or empty where there is none.
    """

    source: str
    name: str
    form: Callable[[Any], str] = str
    better: str = ""
    parts: tuple[str, tuple[str, ...]] = VALUE

    @property
    def heading(self) -> str:
        """The name, with an arrow towards the better end."""
        return self.name + ARROWS[self.better]

    def cells(self, frame: pandas.DataFrame) -> list[str]:
        """Return the printed cells."""
        joined, ends = self.parts
        texts = ([self.form(value) for value in frame[f"{self.source}{end}"]] for end in ends)
        return [joined.format(*cell) for cell in zip(*texts, strict=True)]


def as_mark(value: str) -> str:
    """Print yes and no as marks, and anything else as it is."""
    return MARKS.get(value, value)


def as_count(value: float) -> str:
    """Print whole numbers as such, and a mean over seeds with one decimal."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"


def as_percent(value: float) -> str:
    """Print a fraction as a percentage with one decimal."""
    return "–" if numpy.isnan(value) else f"{100 * value:.1f}"


def as_decimal(value: float) -> str:
    """Print a score with three decimals."""
    return "–" if numpy.isnan(value) else f"{value:.3f}"


def as_p_value(value: float) -> str:
    """Print a p-value with three decimals, and one below the last of them as such."""
    return "< 0.001" if value < 0.001 else as_decimal(value)


def as_change(value: float) -> str:
    """Print a change of a share in points, with a minus sign and not a hyphen, and no sign at zero."""
    text = f"{100 * value:+.1f}"
    return "–" if numpy.isnan(value) else "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


MODEL, METHOD = Column("model", "Model"), Column("method", "Method")
