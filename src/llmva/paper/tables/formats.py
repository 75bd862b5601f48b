"""How a cell looks in print: a column's name, the form of its numbers, and which end of it is the better one."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy
import pandas

Cells = list[str]
Form = Callable[[pandas.DataFrame, str], Cells]
ARROWS = {"low": " ↓", "high": " ↑", "": ""}
MARKS = {"yes": "✓", "no": "✗"}


@dataclass(frozen=True)
class Column:
    """How a column is printed: its name, the form of its cells, and which end of it is the better one."""

    name: str
    form: Form
    better: str = ""

    @property
    def heading(self) -> str:
        """The name, with an arrow towards the better end."""
        return self.name + ARROWS[self.better]


def as_text(frame: pandas.DataFrame, name: str) -> Cells:
    """Print cells as they are."""
    return [str(value) for value in frame[name]]


def as_mark(frame: pandas.DataFrame, name: str) -> Cells:
    """Print yes and no as marks, and anything else as it is."""
    return [MARKS.get(value, value) for value in frame[name]]


def as_count(frame: pandas.DataFrame, name: str) -> Cells:
    """Print whole numbers as such, and a mean over seeds with one decimal."""
    return [f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}" for value in frame[name]]


def as_percent(frame: pandas.DataFrame, name: str) -> Cells:
    """Print fractions as percentages with one decimal."""
    return [_number(100 * value, ".1f") for value in frame[name]]


def as_decimal(frame: pandas.DataFrame, name: str) -> Cells:
    """Print scores with three decimals."""
    return [_number(value, ".3f") for value in frame[name]]


def as_p_value(frame: pandas.DataFrame, name: str) -> Cells:
    """Print p-values with three decimals, and those below the last of them as such."""
    return ["< 0.001" if value < 0.001 else _number(value, ".3f") for value in frame[name]]


def as_score(frame: pandas.DataFrame, name: str) -> Cells:
    """Print scores with three decimals and their interval, from `<name>_low` and `<name>_high`."""
    return _with_bounds(frame, name, as_decimal)


def as_change(frame: pandas.DataFrame, name: str) -> Cells:
    """Print a change of a share in points with its interval, from `<name>_low` and `<name>_high`."""
    return _with_bounds(frame, name, _as_points)


def as_spread(frame: pandas.DataFrame, name: str) -> Cells:
    """Print, for `<score>_spread`, standard deviation and worst run: `<score>_sd` and `<score>_worst`."""
    score = name.removesuffix("_spread")
    parts = (as_decimal(frame, f"{score}_{part}") for part in ("sd", "worst"))
    return [f"{deviation} / {worst}" for deviation, worst in zip(*parts, strict=True)]


def _with_bounds(frame: pandas.DataFrame, name: str, form: Form) -> Cells:
    parts = (form(frame, f"{name}{end}") for end in ("", "_low", "_high"))
    return [f"{value} [{low}, {high}]" for value, low, high in zip(*parts, strict=True)]


def _as_points(frame: pandas.DataFrame, name: str) -> Cells:
    # A minus sign, not a hyphen; and no sign at what is printed as zero.
    texts = (_number(100 * value, "+.1f").replace("-", "−") for value in frame[name])
    return ["0.0" if text in ("+0.0", "−0.0") else text for text in texts]


def _number(value: float, form: str) -> str:
    return "–" if numpy.isnan(value) else format(value, form)


# What several tables have.
MODEL, METHOD = Column("Model", as_text), Column("Method", as_text)
