"""Assemble what `make site` builds from: its pages, and notebooks, tables, figures and help as they are tracked."""

import shutil
from pathlib import Path

from llmva.commands import site_pages
from llmva.core import paths
from llmva.core.errors import InputError, OneLineParser, command
from llmva.core.store import require_writable
from llmva.paper.overview import with_rows

PAGES = paths.REPOSITORY / "site"
TEXTS = ("README.md", "DEVIATIONS.md", "CHANGELOG.md", "STYLE.md")
# In texts that are shown on pages, links to other texts lead to their pages.
PAGE_OF = {f"({name})": f"({name.lower()})" for name in TEXTS[1:]} | {"(tables/)": "(results/tables.md)"}
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
        if name == "README.md":
            text = with_rows(text, paths.REPOSITORY / "tables")
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
        "claims.md": site_pages.list_claims(target / "tables"),
        "runtime_claims.md": site_pages.list_runtime_claims(target / "tables"),
        "items.md": site_pages.list_items(target),
        "notebooks/index.md": site_pages.list_notebooks(notebooks),
        "results/index.md": site_pages.RESULTS,
        "results/tables.md": site_pages.list_tables(target / "tables"),
        "results/figures.md": site_pages.list_figures(target / "figures"),
        "results/hover.md": site_pages.show_hover(target / "figures"),
        "results/smol.md": site_pages.show_pretrained(target),
        "use/commands.md": site_pages.show_help(),
    }
    for name, text in pages.items():
        path = target / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


@command
def main(arguments: list[str] | None = None) -> None:
    """Assemble the site's source in a folder."""
    parser = OneLineParser(prog="python -m llmva.commands.site", description=__doc__)
    parser.add_argument("folder", type=paths.user_path, help="a new one, or one that was assembled before")
    assemble(parser.parse_args(arguments).folder)


if __name__ == "__main__":
    main()
