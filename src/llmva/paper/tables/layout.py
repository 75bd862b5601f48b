"""How a table looks in print: blocks of formatted cells, from which LaTeX and Markdown are made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
import pandas

from llmva.paper.tables.formats import Column

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
# Shrinks what is too wide, and leaves the rest as it is.
FIT = "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{"


@dataclass(frozen=True)
class Block:
    """A part of a table that is printed under a caption of its own.

    Attributes
    ----------
    frame : DataFrame
        The rows, at full precision.
    columns : dict of str to Column
        How they are printed.
    index : tuple of str
        The columns that stand left.
    caption : str
        What the block shows.
    name : str
        Ends its label in LaTeX; empty for the table's main block.
    paper : bool
        Whether the numbers are the paper's and not ours.
    unmarked : tuple of str
        Methods whose values are never bold.
    long : bool
        Whether LaTeX may break it over pages.
    """

    frame: pandas.DataFrame
    columns: dict[str, Column]
    index: tuple[str, ...]
    caption: str
    name: str = ""
    paper: bool = False
    unmarked: tuple[str, ...] = ()
    long: bool = False


@dataclass(frozen=True)
class Table:
    """A display item.

    Attributes
    ----------
    title : str
        Its name in print.
    sources : tuple of str
        The items whose results it is built from.
    build : callable
        Long results by source to frames by file: `""` is the table itself, and any other key ends
        the name of a further CSV.
    blocks, notes : callable
        Those frames to what is printed, and to the sentences below it.
    """

    title: str
    sources: tuple[str, ...]
    build: Callable[[dict[str, pandas.DataFrame]], dict[str, pandas.DataFrame]]
    blocks: Callable[[dict[str, pandas.DataFrame]], list[Block]]
    notes: Callable[[dict[str, pandas.DataFrame]], list[str]]


def print_markdown(block: Block, caption: str) -> str:
    """Return a block as a caption and a Markdown table."""
    cells, best = formatted(block.frame, block.columns), best_cells(block.frame, block.columns, block.unmarked)
    return f"{caption}\n\n{to_markdown(cells, best, index=_headings(block))}"


def print_latex(block: Block, caption: str, label: str) -> str:
    """Return a block as a LaTeX table."""
    cells, best = formatted(block.frame, block.columns), best_cells(block.frame, block.columns, block.unmarked)
    return to_latex(cells, best, index=_headings(block), caption=caption, label=label, long=block.long)


def formatted(frame: pandas.DataFrame, columns: dict[str, Column]) -> pandas.DataFrame:
    """Return the printed cells under their print names."""
    return pandas.DataFrame({column.heading: column.form(frame, name) for name, column in columns.items()})


def best_cells(frame: pandas.DataFrame, columns: dict[str, Column], unmarked: Sequence[str] = ()) -> pandas.DataFrame:
    """Tell which cells hold their model's best value; where all of a model's methods tie, none does.

    Rows of the methods in `unmarked` are left out of the comparison.
    """
    best = pandas.DataFrame(False, index=range(len(frame)), columns=[column.heading for column in columns.values()])
    models = frame["model"].to_numpy() if "model" in frame else numpy.zeros(len(frame))
    compared = ~frame["method"].isin(list(unmarked)).to_numpy() if "method" in frame else numpy.ones(len(frame), bool)
    for name, column in columns.items():
        if column.better:
            values = frame[name].reset_index(drop=True).where(compared)
            groups = values.groupby(models)
            low, high = groups.transform("min"), groups.transform("max")
            end = low if column.better == "low" else high
            best[column.heading] = numpy.isclose(values, end) & ~numpy.isclose(low, high)
    return best


def to_markdown(cells: pandas.DataFrame, best: pandas.DataFrame, *, index: Sequence[str]) -> str:
    """Return the formatted cells as a Markdown table, best ones bold; `index` columns stand left."""
    marked = cells.where(~best, "**" + cells + "**")
    align = ["left" if name in index else "right" for name in cells.columns]
    return marked.to_markdown(index=False, disable_numparse=True, colalign=align)


def to_latex(
    cells: pandas.DataFrame,
    best: pandas.DataFrame,
    *,
    index: Sequence[str],
    caption: str,
    label: str,
    long: bool = False,
) -> str:
    """Return the formatted cells as a LaTeX table with rules, best ones bold, a model's name once."""
    first = cells.columns[0]
    cells = cells.assign(**{first: cells[first].where(cells[first] != cells[first].shift(), "")})
    styler = cells.style.apply(lambda _: best.map(lambda mark: "textbf:--rwrap;" if mark else ""), axis=None)
    styler = styler.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    floating = {"environment": "table*", "position": "t", "position_float": "centering"}
    text = styler.to_latex(
        hrules=True,
        column_format="".join("l" if name in index else "r" for name in cells.columns),
        caption=_escaped(caption),
        label=label,
        **({"environment": "longtable"} if long else floating),
    )
    # A page that continues a long table needs no second caption.
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith(r"\caption[]"))
    for sign, latex in LATEX_SIGNS.items():
        text = text.replace(sign, latex)
    if long:
        # No box can hold a table that breaks over pages: small type and narrow gaps fit most on a landscape page.
        return f"{{\\tiny\\setlength{{\\tabcolsep}}{{2pt}}\n{text}}}\n"
    return text.replace(r"\begin{tabular}", FIT + r"\begin{tabular}").replace(r"\end{tabular}", r"\end{tabular}}")


def _headings(block: Block) -> list[str]:
    return [block.columns[name].heading for name in block.index]


def _escaped(text: str) -> str:
    return text.replace("%", r"\%").replace("_", r"\_").replace("&", r"\&")
