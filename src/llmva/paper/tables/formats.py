"""How a cell looks in print: a column's name, the form of its numbers, and which end of it is the better one."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy
import pandas

Cells = list[str]
MARKS = {"yes": "✓", "no": "✗"}


@dataclass(frozen=True)
class Column:
    """How a column is printed: its name, the form of its cells, and which end of it is the better one."""

    name: str
    form: Callable[[pandas.DataFrame, str], Cells]
    better: str = ""

    @property
    def heading(self) -> str:
        """The name, with an arrow towards the better end."""
        return self.name + {"low": " ↓", "high": " ↑", "": ""}[self.better]


def as_text(frame: pandas.DataFrame, name: str) -> Cells:
    """Print cells as they are."""
    return [str(value) for value in frame[name]]


def as_count(frame: pandas.DataFrame, name: str) -> Cells:
    """Print whole numbers as such, and a mean over seeds with one decimal."""
    return [f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}" for value in frame[name]]


def as_percent(frame: pandas.DataFrame, name: str) -> Cells:
    """Print fractions as percentages with one decimal."""
    return [_number(100 * value, ".1f") for value in frame[name]]


def as_score(frame: pandas.DataFrame, name: str) -> Cells:
    """Print scores with three decimals and their interval, from `<name>_low` and `<name>_high`."""
    bounds = zip(frame[name], frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
    return [f"{_number(value, '.3f')} [{_number(low, '.3f')}, {_number(high, '.3f')}]" for value, low, high in bounds]


def as_decimal(frame: pandas.DataFrame, name: str) -> Cells:
    """Print scores with three decimals."""
    return [_number(value, ".3f") for value in frame[name]]


def as_spread(frame: pandas.DataFrame, name: str) -> Cells:
    """Print, for `<score>_spread`, standard deviation and worst run: `<score>_sd` and `<score>_worst`."""
    name = name.removesuffix("_spread")
    pairs = zip(frame[f"{name}_sd"], frame[f"{name}_worst"], strict=True)
    return [f"{_number(deviation, '.3f')} / {_number(worst, '.3f')}" for deviation, worst in pairs]


def as_mark(frame: pandas.DataFrame, name: str) -> Cells:
    """Print yes and no as marks, and anything else as it is."""
    return [MARKS.get(value, value) for value in frame[name]]


def as_change(frame: pandas.DataFrame, name: str) -> Cells:
    """Print a change of a share in points with its interval, from `<name>_low` and `<name>_high`."""
    bounds = zip(frame[name], frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
    return ["{} [{}, {}]".format(*(_signed(100 * number) for number in numbers)) for numbers in bounds]


def as_p_value(frame: pandas.DataFrame, name: str) -> Cells:
    """Print p-values with three decimals, and those below the last of them as such."""
    return ["< 0.001" if value < 0.001 else _number(value, ".3f") for value in frame[name]]


def _number(value: float, form: str) -> str:
    return "–" if numpy.isnan(value) else format(value, form)


def _signed(value: float) -> str:
    # A minus sign, not a hyphen; and no sign at what is printed as zero.
    text = _number(value, "+.1f").replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text
