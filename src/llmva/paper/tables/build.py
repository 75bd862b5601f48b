"""Tables from `results/` alone: CSV at full precision, LaTeX and Markdown as printed.

`python -m llmva.paper.tables table2 --models tiny-llama tiny-qwen2 --seeds 3` builds one table and prints
it; `python -m llmva.paper.tables all` builds every table that has results.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas

from llmva.core import paths
from llmva.core.errors import InputError, command
from llmva.core.results import read_results, world_of
from llmva.paper.display import Catalogue, split_worlds
from llmva.paper.names import add_seeds, name_kinds
from llmva.paper.tables.items import (
    budget,
    controls,
    examples,
    frontier,
    gating,
    headlines,
    llm_va_r,
    runtime,
    study_seeds,
    table1,
    table3,
    tables2_4,
    utility,
)
from llmva.paper.tables.layout import LATEX_HEAD, WORDS, Block, Frames, print_latex, print_markdown

TABLES = Catalogue(
    "table",
    {
        "table1": table1.TABLE,
        "table2": tables2_4.make_table("table2"),
        "table3": table3.TABLE,
        "table4": tables2_4.make_table("table4"),
        "attacks": tables2_4.make_table("attacks"),
        "gating": gating.TABLE,
        "frontier": frontier.TABLE,
        "utility": utility.TABLE,
        "headlines": headlines.TABLE,
        **{item: controls.make_table(item) for item in ("margins", "judges", "noise", "shortcuts")},
        "draws": study_seeds.TABLE,
        "budget": budget.TABLE,
        "ridge": llm_va_r.TABLE,
        "runtime": runtime.TABLE,
        "examples": examples.TABLE,
    },
    # Of other runs: further seeds of the study, short studies, organisms that took no part in any choice, and those
    # that are steered at run time; and of public prompts alone.
    apart=("draws", "budget", "ridge", "runtime", "examples"),
    first="table2",
)


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

    Organisms never share a table with real models, nor either with a pretrained one; see `display.split_worlds`.
    """
    contents = {}
    for stem, world in split_worlds(item, slugs).items():
        contents |= _contents(item, stem, world)
    for name, content in contents.items():
        paths.write_atomically(paths.TABLES / name, content)
    return [paths.TABLES / name for name in contents]


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Build one table or all, and print each as Markdown."""
    options = TABLES.read_options(arguments)
    for item, slugs in TABLES.choose(options, add_seeds(options.models, options.seeds)):
        for path in save_table(item, slugs):
            print(path.read_text(encoding="utf-8") if path.suffix == ".md" else f"wrote {path}")


def _build(item: str, slugs: Sequence[str]) -> Frames:
    table, slugs = TABLES[item], list(dict.fromkeys(slugs))
    if len({world_of(slug) for slug in slugs}) > 1:
        raise InputError(f"{item}: {', '.join(slugs)} are models of different kinds; build a table of each")
    return table.build({source: read_results(source, slugs) for source in table.sources})


def _contents(item: str, stem: str, slugs: Sequence[str]) -> dict[str, str]:
    """Return every file of a table of one world; the paper's own values are the same in both."""
    frames, table = _build(item, slugs), TABLES[item]
    names = {"": stem, "paper": f"{item}_paper"}
    contents = {
        f"{names.get(key, f'{stem}_{key}')}.csv": frame.to_csv(index=False, lineterminator="\n")
        for key, frame in frames.items()
    }
    latex, markdown = [], []
    for part in table.show(frames):
        if isinstance(part, Block):
            papers = part.name == "paper"
            world = "paper" if papers else world_of(slugs[0])
            sentence = WORDS["worlds"][world].format(kinds=name_kinds(slugs))
            block = replace(part, caption=f"{part.caption} {sentence}")
            latex.append(print_latex(block, f"tab:{stem}_{part.name}".rstrip("_")))
            part = print_markdown(block, f"{table.title}, the paper's" if papers else table.title)
        markdown.append(part)
    text = LATEX_HEAD + "\n".join(latex)
    return {**contents, f"{stem}.tex": text, f"{stem}.md": "\n\n".join(markdown) + "\n"}
