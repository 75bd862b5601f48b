"""How a table looks in print: columns of formatted cells, blocks of them, and LaTeX and Markdown made from these."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy
import pandas
import yaml

from llmva.core.vocabulary import CONSTANTS
from llmva.paper.display import Item
from llmva.paper.tables.resampling import MIN_RUNS

Frames = dict[str, pandas.DataFrame]
# By item: captions, notes and columns.
WORDS = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
LATEX_SIGNS = {
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "✓": r"$\checkmark$",
    "✗": r"$\times$",
    "–": "--",
    "−": "$-$",
    "< ": "$<$ ",
    "…": r"\ldots{}",
}
LATEX_HEAD = (
    "% Needs the packages amssymb, booktabs, graphicx and longtable; the long tables, a wide page (A3, landscape).\n"
)
MARKS = {"yes": "✓", "no": "✗"}
ARROWS = {"low": " ↓", "high": " ↑", "": ""}
# How a cell is joined, and the ends of the columns' names that it is joined of.
PARTS = {
    "value": ("{}", ("",)),
    "interval": ("{} [{}, {}]", ("", "_low", "_high")),
    "spread": ("{} / {}", ("_sd", "_worst")),
}
# Shrinks what is too wide, and leaves the rest as it is.
FIT = "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{"


@dataclass(frozen=True)
class Column:
    """How a column of a frame is printed: under which name, in which form of `FORMS`, as which `PARTS` of a cell.

    The `better` end is `low` or `high`, or empty where there is none.
    """

    source: str
    name: str
    form: str = "text"
    better: str = ""
    parts: str = "value"

    @property
    def heading(self) -> str:
        """The name, with an arrow towards the better end."""
        return self.name + ARROWS[self.better]

    def cells(self, frame: pandas.DataFrame) -> list[str]:
        """Return the printed cells."""
        joined, ends = PARTS[self.parts]
        texts = (frame[f"{self.source}{end}"].map(FORMS[self.form]) for end in ends)
        # Where there is no interval, a cell claims none.
        return [cell[0] if self.parts == "interval" and set(cell[1:]) == {"–"} else joined.format(*cell)
                for cell in zip(*texts, strict=True)]  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A part of a table that is printed under a caption of its own.

    Columns of text that come first stand left. `name` ends its label in LaTeX: it is empty for the table's main
    block, and `paper` for the paper's numbers. LaTeX may break a `long` one over pages.
    """

    frame: pandas.DataFrame
    columns: list[Column]
    caption: str
    name: str = ""
    long: bool = False


@dataclass(frozen=True)
class Table(Item):
    """A table: the items whose results it is built from, its name in print, and two functions.

    `build` takes long results by source and gives frames by file: `""` is the table itself, and any other key ends
    the name of a further CSV. `show` gives what is printed of them: blocks, and the sentences between them.
    """

    title: str
    build: Callable[[Frames], Frames]
    show: Callable[[Frames], list[Block | str]]


def read_columns(item: str, name: str = "columns") -> list[Column]:
    """Return columns of a table as `words.yaml` lists them."""
    return [Column(**column) for column in WORDS[item][name]]


def describe_intervals(runs: int) -> str:
    """Return what the intervals of means over runs come from, or that there are none."""
    return WORDS["intervals"]["runs" if runs >= MIN_RUNS else "none"]


def describe_levels(models: int, runs: int) -> str:
    """Return what a hierarchical bootstrap draws, from the numbers of models and of runs, each a seed of one."""
    several = "models_and_seeds" if runs > models else "models"
    return WORDS["levels"][several if models > 1 else "seeds" if runs > 1 else "run"]


def print_markdown(block: Block, heading: str) -> str:
    """Return a block as a caption and a Markdown table, the best cells bold."""
    cells, align = _formatted(block), ["left" if side == "l" else "right" for side in _sides(block)]
    marked = cells.where(~_best_cells(block), "**" + cells + "**")
    return f"**{heading}.** {block.caption}\n\n{marked.to_markdown(index=False, disable_numparse=True, colalign=align)}"


def print_latex(block: Block, label: str) -> str:
    """Return a block as a LaTeX table with rules, the best cells bold, a model's name once."""
    cells, best = _formatted(block), _best_cells(block)
    first = cells.columns[0]
    cells = cells.assign(**{first: cells[first].where(cells[first] != cells[first].shift(), "")})
    styler = cells.style.apply(lambda _: best.map(lambda mark: "textbf:--rwrap;" if mark else ""), axis=None)
    styler = styler.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    floating = {"environment": "table*", "position": "t", "position_float": "centering"}
    kind = {"environment": "longtable"} if block.long else floating
    caption = block.caption.replace("%", r"\%").replace("_", r"\_").replace("&", r"\&")
    text = styler.to_latex(hrules=True, column_format=_sides(block), caption=caption, label=label, **kind)
    # A page that continues a long table needs no second caption.
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith(r"\caption[]"))
    for sign, latex in LATEX_SIGNS.items():
        text = text.replace(sign, latex)
    if block.long:
        # No box can hold a table that breaks over pages: small type and narrow gaps fit most on a landscape page.
        return f"{{\\tiny\\setlength{{\\tabcolsep}}{{2pt}}\n{text}}}\n"
    return text.replace(r"\begin{tabular}", FIT + r"\begin{tabular}").replace(r"\end{tabular}", r"\end{tabular}}")


def _formatted(block: Block) -> pandas.DataFrame:
    return pandas.DataFrame({column.heading: column.cells(block.frame) for column in block.columns})


def _sides(block: Block) -> str:
    names = len(list(takewhile(lambda column: column.form == "text", block.columns)))
    return "l" * names + "r" * (len(block.columns) - names)


def _best_cells(block: Block) -> pandas.DataFrame:
    """Tell which cells hold their model's best value; where all of a model's methods tie, none does.

    Methods that read no prompt are left out of the comparison.
    """
    frame = block.frame.reset_index(drop=True)
    best = pandas.DataFrame(False, index=frame.index, columns=[column.heading for column in block.columns])
    models = frame.get("model", pandas.Series("", index=frame.index))
    for column in block.columns:
        if column.better:
            values = frame[column.source].where(~frame["method"].isin(list(CONSTANTS)))
            low, high = (values.groupby(models).transform(end) for end in ("min", "max"))
            end = low if column.better == "low" else high
            best[column.heading] = numpy.isclose(values, end) & ~numpy.isclose(low, high)
    return best


def _print_count(value: float) -> str:
    """Print whole numbers as such, and a mean over seeds with one decimal."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"


def _print_percent(value: float) -> str:
    return "–" if numpy.isnan(value) else f"{100 * value:.1f}"


def _print_decimal(value: float) -> str:
    return "–" if numpy.isnan(value) else f"{value:.3f}"


def _print_p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else _print_decimal(value)


def _print_change(value: float) -> str:
    """Print a change of a share in points, with a minus sign and not a hyphen, and no sign at zero."""
    text = f"{100 * value:+.1f}"
    return "–" if numpy.isnan(value) else "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


FORMS: dict[str, Callable[[Any], str]] = {
    "text": str,
    "mark": lambda value: MARKS.get(value, value),
    "count": _print_count,
    "percent": _print_percent,
    "decimal": _print_decimal,
    "p_value": _print_p_value,
    "change": _print_change,
}
