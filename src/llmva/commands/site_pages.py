"""The site's pages that are made of what is tracked: notebooks, tables, figures, claims and the commands' help."""

import contextlib
import importlib
import io
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import nbformat
import pandas

from llmva.commands.console import COMMANDS
from llmva.core import paths
from llmva.core.vocabulary import PRETRAINED_MODELS
from llmva.paper.figures.hover import draw_frontiers, draw_map
from llmva.paper.names import describe_runs

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
    "performance": ("what is fast, and how much", "16_performance"),
}
# The further CSV files that a table may have, by the ends of their names.
FURTHER_FILES = {
    "seeds": "by seed",
    "runs": "by run",
    "studies": "by study",
    "stop": "of the stop rule",
    "claims": "of the claims",
    "paper": "of the paper's",
}
# Where a claim's quantity is measured, by words of the claim.
MEASURED = {"unseen": "10_transferability", "kept": "06_utility", "": "05_main_results"}
SECOND = "12_runtime_steering"


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


def list_claims(tables: Path) -> str:
    """Return the first paper's claims: each with its number, ours, the interval, the verdict and the notebook."""
    rows = pandas.read_csv(tables / "headlines.csv")
    rows["notebook"] = [next(MEASURED[word] for word in MEASURED if word in claim) for claim in rows["claim"]]
    return "\n".join([*_claims(rows), ""])


def list_runtime_claims(tables: Path) -> str:
    """Return the second paper's claims likewise, against each threat."""
    parts = []
    for threat, rows in pandas.read_csv(tables / "runtime_claims.csv").groupby("threat", sort=False):
        parts += [f"### Against {threat}", "", *_claims(rows.assign(notebook=SECOND)), ""]
    return "\n".join(parts)


def _claims(rows: pandas.DataFrame) -> Iterator[str]:
    yield "| Claim | Method | The paper's | Here | Verdict | Notebook |"
    yield "|---|---|---|---|---|---|"
    for row in rows.itertuples():
        paper = "\u2013" if pandas.isna(row.paper) else f"{row.paper:.3f}"
        bounds = "" if pandas.isna(row.here_low) else f" [{row.here_low:.3f}, {row.here_high:.3f}]"
        here = f"{row.here:.3f}{bounds}"
        yield f"| {row.claim} | {row.method} | {paper} | {here} | {row.verdict} | {_link(row.notebook)} |"


def list_items(source: Path) -> str:
    """Return README's map from the paper's items to notebooks and targets, with what each notebook costs."""
    costs = {path.stem: _in_box(path, "Cost") for path in (source / "notebooks").glob("*.ipynb")}
    lines = ["| Item | Notebook | Make target | Cost |", "|---|---|---|---|"]
    for what, notebook, targets in _map():
        lines.append(f"| {what} | {_link(notebook)} | {targets} | {costs[notebook]} |")
    return "\n".join([*lines, ""])


def _map() -> list[tuple[str, str, str]]:
    readme = (paths.REPOSITORY / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^\| (.+) \| `(\d\d_\w+)` \| (.+) \|$", readme, flags=re.MULTILINE)


def _in_box(path: Path, name: str) -> str:
    """Return a line of the box at a notebook's beginning."""
    first = nbformat.read(path, as_version=4).cells[0].source
    return re.search(rf"^\| {name} \| (.+) \|$", first, flags=re.MULTILINE).group(1)


def _link(notebook: str, root: str = "") -> str:
    return f"[{notebook}]({root}notebooks/{notebook}.ipynb)"


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
    head = "Organism results. A click on a head sorts a table. Tables of the pretrained model, among them `examples`, "
    parts = ["# Tables", "", f"{head}are [on a page of their own](smol.md)."]
    for name in names:
        parts += ["", f"(table-{name})=", "", f"## {name}", "", _origin(name), ""]
        parts += [f"```{{include}} ../tables/{name}.md", "```", "", _downloads("tables", name, folder)]
    return "\n".join([*parts, *_performance(folder), ""])


def _performance(folder: Path) -> Iterator[str]:
    """Yield the part on what was measured of speed, which has no Markdown of its own."""
    rows = pandas.read_csv(folder / "performance.csv", dtype=str, keep_default_na=False)
    machines = " and ".join(rows.pop("machine").unique())
    yield from ["", "(table-performance)=", "", "## performance", "", _origin("performance"), ""]
    yield "**Performance.** Two ways in one run, and what one gains on the other: `ratio` is the median over `runs`, or"
    yield "seconds, degrees or a share where the row says so. `goal` is what was asked for, and `met` whether it was"
    yield "reached; a row without a goal is for information, and one without a ratio could not be measured. The machine"
    yield f"was {machines} where the row names no other number. The organism in it is one alone, `tiny-llama`."
    yield from ["", rows.replace({"": "\u2013"}).to_markdown(index=False, disable_numparse=True), ""]
    yield _downloads("tables", "performance", folder)


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
    over = describe_runs(cells.groupby("model")["seeds"].first().to_dict())
    parts += ["", "## Layers and strengths at run time", "", f"Means over {over}, from 0 (dark) to 1."]
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
        parts += ["", f"## {path.stem}", "", _origin(path.stem), "", f"```{{include}} ../tables/{path.name}", "```", ""]
        parts += [_downloads("tables", path.stem, path.parent)]
    for path in sorted((target / "figures" / PRETRAINED).glob("*.png"), key=_number):
        parts += ["", f"## {_title(path.stem)}, of {PRETRAINED}", ""]
        parts += [_picture(f"../figures/{PRETRAINED}/{path.name}", f"{path.stem} of {PRETRAINED}"), ""]
        parts += [_downloads(f"figures/{PRETRAINED}", path.stem, path.parent)]
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
    files = {suffix.upper(): f"{name}.{suffix}" for suffix in ("csv", "tex", "pdf")}
    if kind == "tables":
        files |= {f"CSV {words}": f"{name}_{end}.csv" for end, words in FURTHER_FILES.items()}
    there = {words: file for words, file in files.items() if (folder / file).is_file()}
    links = ", ".join(f"{{download}}`{words} <../{kind}/{file}>`" for words, file in there.items())
    return f"Download: {links}" if links else ""


def _picture(path: str, alternative: str) -> str:
    return f"![{_title(alternative)}: its data are in the CSV below]({path})"


def _origin(stem: str) -> str:
    """Return what a table or a figure shows, and the notebook that makes it, as README's map has it."""
    name = stem.partition("_")[0]
    known = {
        target: (what, notebook) for what, notebook, targets in _map() for target in re.findall("`(.+?)`", targets)
    }
    what, notebook = known.get(name) or FURTHER[name]
    return f"*{what}*: notebook {_link(notebook, '../')}."


def _title(stem: str) -> str:
    name, _, rest = stem.partition("_")
    return f"Figure {name.removeprefix('figure')}" + (f", {rest.replace('_', ' ')}" if rest else "")


def _number(path: Path) -> tuple[int, str]:
    digits = "".join(filter(str.isdigit, path.stem.partition("_")[0]))
    return int(digits or 0), path.stem
