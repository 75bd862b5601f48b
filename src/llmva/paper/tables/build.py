"""Tables from `results/` alone: CSV at full precision, LaTeX and Markdown as printed.

`python -m llmva.paper.tables table2 --models tiny-llama tiny-qwen2 --seeds 3` builds one table and prints
it; `python -m llmva.paper.tables all` builds every table that has results.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas

from llmva.core import paths
from llmva.core.errors import InputError, command
from llmva.core.params import known_slugs
from llmva.core.results import is_organism, read_results, result_path
from llmva.paper.names import add_seeds, leave_out
from llmva.paper.tables.items import headlines, llm_va_r, study_seeds, table1, table3, tables2_4, utility
from llmva.paper.tables.items.controls import CONTROLS
from llmva.paper.tables.layout import LATEX_HEAD, WORDS, Block, Frames, Table, print_latex, print_markdown

TABLES = {
    "table1": table1.TABLE,
    "table2": tables2_4.make_table("table2"),
    "table3": table3.TABLE,
    "table4": tables2_4.make_table("table4"),
    "utility": utility.TABLE,
    "headlines": headlines.TABLE,
    **{item: control.make_table() for item, control in CONTROLS.items()},
    "draws": study_seeds.TABLE,
    "ridge": llm_va_r.TABLE,
}
# Of other runs than the other tables: further seeds of the study, and organisms that took no part in any choice.
APART = ("draws", "ridge")


def build_table(item: str, slugs: Sequence[str]) -> pandas.DataFrame:
    """Return a table of `TABLES` as its CSV holds it: full precision, rates as fractions.

    Several seeds of a model (`tiny-llama`, `tiny-llama-s1`) become one row.

    Raises
    ------
    InputError
        When the item is unknown, a model, a method or a metric is missing, or real models and
        organisms are mixed.
    """
    return _build(item, slugs)[""]


def save_table(item: str, slugs: Sequence[str]) -> list[Path]:
    """Write a table as CSV, LaTeX and Markdown, with its further CSV files, and return the files.

    Organisms never share a table with real models: where both are named, the files of the item's
    own name hold the real ones, and those of `<item>_organisms` the others.
    """
    worlds = [[slug for slug in slugs if is_organism(slug) == organisms] for organisms in (False, True)]
    stems = [item, f"{item}_organisms" if all(worlds) else item]
    contents = {}
    for world, stem in zip(worlds, stems, strict=True):
        if world or not slugs:
            contents |= _contents(item, stem, world)
    for name, content in contents.items():
        paths.write_atomically(paths.TABLES / name, content)
    return [paths.TABLES / name for name in contents]


def with_results(item: str, slugs: Sequence[str]) -> list[str]:
    """Return the models that have all results that a table is built from."""
    sources = _table(item).sources
    return [slug for slug in slugs if all(result_path(slug, source).is_file() for source in sources)]


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Build one table or all, and print each as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m llmva.paper.tables", description="Build tables from results/.")
    parser.add_argument("item", help=f"{', '.join(TABLES)}, or all: every table that has results")
    parser.add_argument("--models", nargs="+", help="slugs; default: the organisms of papermill_params/")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each organism: itself, -s1, -s2, ...; default 1")
    parser.add_argument("--present", action="store_true", help="leave out models without results, and say which")
    options = parser.parse_args(arguments)
    slugs = add_seeds(options.models or [slug for slug in known_slugs() if is_organism(slug)], options.seeds)
    for item in _items_with_results(slugs) if options.item == "all" else [options.item]:
        lenient = options.present or options.item == "all"
        shown = leave_out(item, slugs, with_results(item, slugs)) if lenient else slugs
        for path in save_table(item, shown):
            print(path.read_text(encoding="utf-8") if path.suffix == ".md" else f"wrote {path}")


def _build(item: str, slugs: Sequence[str]) -> Frames:
    table, slugs = _table(item), list(dict.fromkeys(slugs))
    if len({is_organism(slug) for slug in slugs}) > 1:
        raise InputError(f"{item}: {', '.join(slugs)} are real models and organisms; build a table of each")
    return table.build({source: read_results(source, slugs) for source in table.sources})


def _contents(item: str, stem: str, slugs: Sequence[str]) -> dict[str, str]:
    """Return every file of a table of one world; the paper's own values are the same in both."""
    frames, table = _build(item, slugs), _table(item)
    names = {"": stem, "paper": f"{item}_paper"}
    contents = {
        f"{names.get(key, f'{stem}_{key}')}.csv": frame.to_csv(index=False, lineterminator="\n")
        for key, frame in frames.items()
    }
    latex, markdown = [], []
    for part in table.show(frames):
        if isinstance(part, Block):
            papers = part.name == "paper"
            world = "paper" if papers else "organisms" if is_organism(slugs[0]) else "real"
            block = replace(part, caption=f"{part.caption} {WORDS['worlds'][world]}")
            latex.append(print_latex(block, f"tab:{stem}_{part.name}".rstrip("_")))
            part = print_markdown(block, f"{table.title}, the paper's" if papers else table.title)
        markdown.append(part)
    text = LATEX_HEAD + "\n".join(latex)
    return {**contents, f"{stem}.tex": text, f"{stem}.md": "\n\n".join(markdown) + "\n"}


def _table(item: str) -> Table:
    if item not in TABLES:
        raise InputError(f"{item}: unknown table; known are {', '.join(TABLES)} (or all)")
    return TABLES[item]


def _items_with_results(slugs: Sequence[str]) -> list[str]:
    # One model's results are enough to start a table.
    items = [item for item in TABLES if item not in APART and with_results(item, slugs)]
    if not items:
        raise InputError(f"{paths.RESULTS}: no table's results for {', '.join(slugs)}; run `make table2` first")
    return items
