"""Assemble what `make site` builds from: its pages, and notebooks, tables, figures and help as they are tracked."""

import contextlib
import importlib
import io
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat
import pandas

from llmva.commands.console import COMMANDS
from llmva.core import paths
from llmva.core.errors import InputError, OneLineParser, command
from llmva.core.store import require_writable
from llmva.core.vocabulary import PRETRAINED_MODELS
from llmva.paper.figures.hover import draw_frontiers, draw_map

PAGES = paths.REPOSITORY / "site"
TEXTS = ("README.md", "DEVIATIONS.md", "CHANGELOG.md", "STYLE.md")
# In texts that are shown on pages, links to other texts lead to their pages.
PAGE_OF = {f"({name})": f"({name.lower()})" for name in TEXTS[1:]} | {"(tables/)": "(results/tables.md)"}
(PRETRAINED,) = PRETRAINED_MODELS
# Tables that README's map does not name: what they are, and their notebook.
FURTHER = {
    "headlines": ("the paper's claims in numbers", "20_paper"),
    "draws": ("Table 2 with other seeds of the study", "05_main_results"),
    "budget": ("Table 2 with a fifth of the trials", "05_main_results"),
    "margins": ("the angles with softer margins", "01_orthogonality"),
    "judges": ("two judges against one", "11_judges"),
    "noise": ("noise on the weights", "11_judges"),
    "shortcuts": ("what else than safety tells the sets apart", "11_judges"),
}
# Of a folder that was assembled here, and may be replaced.
MARK = ".site_source"


def assemble(target: Path) -> None:
    """Write Sphinx's source into a folder; one that was assembled before is replaced.

    Raises
    ------
    InputError
        When there is no repository around the package, or the folder holds something else.
    """
    if not PAGES.is_dir():
        raise InputError(f"{PAGES}: no such folder; the site is built in a clone of the repository")
    require_writable(target)
    if target.is_dir() and any(target.iterdir()) and not (target / MARK).is_file():
        raise InputError(f"{target}: holds other files; name an empty or a new folder")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(PAGES, target)
    (target / MARK).touch()
    for name in TEXTS:
        text = (paths.REPOSITORY / name).read_text(encoding="utf-8")
        for link, page in PAGE_OF.items():
            text = text.replace(link, page)
        (target / name).write_text(text, encoding="utf-8")
    for name in ("tables", "figures"):
        shutil.copytree(paths.REPOSITORY / name, target / name)
    for name, source in {"code": paths.PACKAGE, "examples": paths.REPOSITORY / "tests" / "examples"}.items():
        shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    notebooks = sorted((paths.REPOSITORY / "notebooks").glob("*.ipynb"))
    (target / "notebooks").mkdir()
    for path in notebooks:
        shutil.copy(path, target / "notebooks")
    pages = {
        "notebooks/index.md": list_notebooks(notebooks),
        "results/index.md": RESULTS,
        "results/tables.md": list_tables(target / "tables"),
        "results/figures.md": list_figures(target / "figures"),
        "results/hover.md": show_hover(target / "figures"),
        "results/smol.md": show_pretrained(target),
        "use/commands.md": show_help(),
    }
    for name, text in pages.items():
        path = target / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


RESULTS = """# Results

What is tracked in the repository, rebuilt from `results/` alone by `make tables figures`. Organisms and the pretrained
model never share a column, a mean or a page.

```{toctree}
:maxdepth: 2

tables
figures
hover
smol
```
"""


def list_notebooks(notebooks: Iterable[Path]) -> str:
    """Return the page of all notebooks, with the question that each one answers."""
    rows = []
    for path in notebooks:
        first = nbformat.read(path, as_version=4).cells[0].source.splitlines()
        title, question = first[0].lstrip("# "), next(line.strip("*") for line in first if line.startswith("**"))
        rows.append(f"| [{title}]({path.name}) | {question} |")
    tree = "\n".join(path.stem for path in notebooks)
    head = "# Notebooks\n\nThe study in order, with the outputs that are tracked; one organism is `tiny-llama`."
    table = "| Notebook | What it asks |\n|---|---|"
    return "\n".join([head, "", table, *rows, "", "```{toctree}", ":hidden:", "", tree, "```", ""])


def list_tables(folder: Path) -> str:
    """Return the page of the organisms' tables, as printed, each with its data for download."""
    names = sorted(path.stem for path in folder.glob("*.md") if not path.stem.endswith(f"_{PRETRAINED}"))
    parts = ["# Tables", "", "Of model organisms. A click on a head sorts a table."]
    for name in names:
        parts += [
            "",
            f"(table-{name})=",
            "",
            f"## {name}",
            "",
            _origin(name),
            "",
            f"```{{include}} ../tables/{name}.md",
            "```",
            "",
            _downloads("tables", name, folder),
        ]
    return "\n".join([*parts, ""])


def list_figures(folder: Path) -> str:
    """Return the page of the organisms' figures, each with its data for download."""
    parts = ["# Figures", "", "Of model organisms; figures of one model alone are in the repository."]
    for path in sorted(folder.glob("*.png"), key=_number):
        parts += ["", f"## {_title(path.stem)}", "", _origin(path.stem), ""]
        parts += [_picture(f"../figures/{path.name}", path.stem), "", _downloads("figures", path.stem, folder)]
    return "\n".join([*parts, ""])


def show_hover(folder: Path) -> str:
    """Return the page of pictures whose marks say their numbers where the mouse rests."""
    points, cells = (pandas.read_csv(folder / f"{name}.csv") for name in ("figure17", "figure15"))
    parts = ["# Under the mouse", "", "Rest the mouse on a mark, and it says its numbers. Of model organisms."]
    parts += [
        "",
        "## One failure for the other",
        "",
        "Each setting on a method's front, on test prompts; the loops and",
    ]
    parts += ["LLM-VA-R moved by beta are in colour. Scales are roots, since what matters lies in the corner."]
    for model in dict.fromkeys(points["model"]):
        parts += ["", f"### {model}", "", "```{raw} html", draw_frontiers(points, model), "```"]
    parts += ["", "## Layers and strengths at run time", "", "Means over the persona organisms, from 0 (dark) to 1."]
    for method in dict.fromkeys(cells["method"]):
        for value in ("trait", "coherence"):
            parts += ["", f"### {method}, {value} under dishonesty", "", "```{raw} html"]
            parts += [draw_map(cells, method, "dishonesty", value), "```"]
    return "\n".join([*parts, ""])


def show_pretrained(target: Path) -> str:
    """Return the page of the pretrained model: README's words, its tables and its figures."""
    words = ["```{include} ../README.md", ':start-after: "## On a pretrained model"', ':end-before: "## Content note"']
    parts = ["# On a pretrained model", "", *words, ":relative-images:", "```"]
    for path in sorted((target / "tables").glob(f"*_{PRETRAINED}.md")):
        parts += ["", f"## {path.stem}", "", f"```{{include}} ../tables/{path.name}", "```", ""]
        parts += [_downloads("tables", path.stem, path.parent)]
    for path in sorted((target / "figures" / PRETRAINED).glob("*.png"), key=_number):
        parts += ["", f"## {_title(path.stem)}, of {PRETRAINED}", ""]
        parts += [_picture(f"../figures/{PRETRAINED}/{path.name}", f"{path.stem} of {PRETRAINED}")]
    return "\n".join([*parts, ""])


def show_help() -> str:
    """Return the page of all commands, with what each says of itself."""
    parts = [
        "# Commands",
        "",
        "`llmva COMMAND`, or the target of Make of the same name, which takes variables instead.",
    ]
    for name, (module, what) in COMMANDS.items():
        parts += ["", f"## {name}", "", f"{what[0].upper()}{what[1:]}.", "", "```text", _help_of(module), "```"]
    return "\n".join([*parts, ""])


def _help_of(module: str) -> str:
    said = io.StringIO()
    given, sys.argv = sys.argv, ["llmva", "--help"]
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            importlib.import_module(module).main()
    finally:
        sys.argv = given
    return said.getvalue().strip()


def _downloads(kind: str, name: str, folder: Path) -> str:
    there = [suffix for suffix in ("csv", "tex", "pdf") if (folder / f"{name}.{suffix}").is_file()]
    links = ", ".join(f"{{download}}`{suffix.upper()} <../{kind}/{name}.{suffix}>`" for suffix in there)
    return f"Download: {links}" if links else ""


def _picture(path: str, alternative: str) -> str:
    return f"![{_title(alternative)}: its data are in the CSV below]({path})"


def _origin(stem: str) -> str:
    """Return what a table or a figure shows, and the notebook that makes it, as README's map has it."""
    name = stem.partition("_")[0]
    readme = (paths.REPOSITORY / "README.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in readme.splitlines() if f"`{name}`" in line and line[0] == "|"]
    what, notebook = (cell.strip("`") for cell in rows[0][:2]) if rows else FURTHER[name]
    return f"*{what}*: notebook [{notebook}](../notebooks/{notebook}.ipynb)."


def _title(stem: str) -> str:
    name, _, rest = stem.partition("_")
    return f"Figure {name.removeprefix('figure')}" + (f", {rest.replace('_', ' ')}" if rest else "")


def _number(path: Path) -> tuple[int, str]:
    digits = "".join(filter(str.isdigit, path.stem.partition("_")[0]))
    return int(digits or 0), path.stem


@command
def main(arguments: list[str] | None = None) -> None:
    """Assemble the site's source in a folder."""
    parser = OneLineParser(prog="python -m llmva.commands.site", description=__doc__)
    parser.add_argument("folder", type=paths.user_path, help="a new one, or one that was assembled before")
    assemble(parser.parse_args(arguments).folder)


if __name__ == "__main__":
    main()
