"""How a table looks in print: one frame of formatted cells, from which LaTeX and Markdown are made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
import pandas

Cells = list[str]
LATEX_SIGNS = {"↓": r"$\downarrow$", "↑": r"$\uparrow$", "–": "--", "< ": "$<$ ", "…": r"\ldots{}"}


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


def as_p_value(frame: pandas.DataFrame, name: str) -> Cells:
    """Print p-values with three decimals, and those below the last of them as such."""
    return ["< 0.001" if value < 0.001 else _number(value, ".3f") for value in frame[name]]


def formatted(frame: pandas.DataFrame, columns: dict[str, Column]) -> pandas.DataFrame:
    """Return the printed cells under their print names."""
    return pandas.DataFrame({column.heading: column.form(frame, name) for name, column in columns.items()})


def best_cells(frame: pandas.DataFrame, columns: dict[str, Column]) -> pandas.DataFrame:
    """Tell which cells hold their model's best value; where all of a model's methods tie, none does."""
    best = pandas.DataFrame(False, index=range(len(frame)), columns=[column.heading for column in columns.values()])
    for name, column in columns.items():
        if column.better:
            groups = frame[name].reset_index(drop=True).groupby(frame["model"].to_numpy())
            low, high = groups.transform("min"), groups.transform("max")
            end = low if column.better == "low" else high
            values = frame[name].to_numpy()
            best[column.heading] = numpy.isclose(values, end) & ~numpy.isclose(low, high)
    return best


def to_markdown(cells: pandas.DataFrame, best: pandas.DataFrame, *, index: Sequence[str]) -> str:
    """Return the formatted cells as a Markdown table, best ones bold; `index` columns stand left."""
    marked = cells.where(~best, "**" + cells + "**")
    align = ["left" if name in index else "right" for name in cells.columns]
    return marked.to_markdown(index=False, disable_numparse=True, colalign=align)


def to_latex(cells: pandas.DataFrame, best: pandas.DataFrame, *, index: Sequence[str], caption: str, label: str) -> str:
    """Return the formatted cells as a LaTeX table with rules, best ones bold, a model's name once."""
    first = cells.columns[0]
    cells = cells.assign(**{first: cells[first].where(cells[first] != cells[first].shift(), "")})
    styler = cells.style.apply(lambda _: best.map(lambda mark: "textbf:--rwrap;" if mark else ""), axis=None)
    styler = styler.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    text = styler.to_latex(
        hrules=True,
        column_format="".join("l" if name in index else "r" for name in cells.columns),
        environment="table*",
        position="t",
        position_float="centering",
        caption=_escaped(caption),
        label=label,
    )
    for sign, latex in LATEX_SIGNS.items():
        text = text.replace(sign, latex)
    return "% Needs the package booktabs.\n" + text


def _number(value: float, form: str) -> str:
    return "–" if numpy.isnan(value) else format(value, form)


def _escaped(text: str) -> str:
    return text.replace("%", r"\%").replace("_", r"\_").replace("&", r"\&")
