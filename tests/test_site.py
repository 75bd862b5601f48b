"""The package as a book: built from tracked files without a warning, whole, small, and with nothing to fetch."""

import csv
import re
import subprocess
import sys
from html import unescape
from importlib.util import find_spec
from pathlib import Path

import pytest

from llmva.commands import site
from llmva.commands.console import COMMANDS
from llmva.core.errors import InputError
from llmva.core.paths import ROOT

MOST_BYTES = 15e6
pytestmark = pytest.mark.skipif(
    not all(map(find_spec, ("sphinx", "myst_nb", "furo", "latex2mathml"))), reason="the extra `site` is not installed"
)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """Return the folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    site.assemble(folder / "source")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    command += ["-d", folder / "doctrees", folder / "source", folder / "html"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def text_of(path: Path) -> str:
    """Return what a page says, without marks."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", path.read_text(encoding="utf-8"))).split())


def pages_of(book: Path) -> list[Path]:
    return [path for path in book.rglob("*.html") if "_modules" not in path.parts]


def test_no_page_fetches_anything_and_every_local_link_leads_somewhere(book):
    for page in pages_of(book):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]*rel="(?:stylesheet|preload|icon)[^>]*href="([^"]+)"', text)
        assert not [link for link in loaded if link.startswith(("http:", "https:", "//"))], page
        for link in [*loaded, *re.findall(r'<a[^>]*\shref="([^"#?]+)[#?"]', text)]:
            if not re.match(r"[a-z]+:", link):
                assert (page.parent / link.split("?")[0].split("#")[0]).exists(), (page, link)


def test_the_site_is_small_and_every_picture_has_words(book):
    assert sum(path.stat().st_size for path in book.rglob("*") if path.is_file()) < MOST_BYTES
    for page in pages_of(book):
        for picture in re.findall(r"<img[^>]*>", page.read_text(encoding="utf-8")):
            assert re.search(r'alt="[^"]+"', picture), (page, picture)


def test_mathematics_is_drawn_and_needs_no_script(book):
    for name in ("vectors", "selection", "edit", "ridge", "tradeoff", "runtime"):
        text = (book / "method" / f"{name}.html").read_text(encoding="utf-8")
        assert "<math" in text and "\\mathrm" not in text and "MathJax" not in text


def test_what_a_reader_looks_for_is_there(book):
    with (ROOT / "tables" / "ridge.csv").open(encoding="utf-8") as file:
        ours = next(row for row in csv.DictReader(file) if row["method"] == "LLM-VA-R")
    tables = text_of(book / "results" / "tables.html")
    low, high = (float(ours[f"test_strict_f1_mean_{end}"]) for end in ("low", "high"))
    assert f"[{low:.3f}, {high:.3f}]" in tables
    claims = text_of(book / "paper.html")
    assert "does not hold" in claims and "Where the paper's claim fails" in claims.replace("’", "'")
    assert "llmva.align(model,tokenizer,prompts)" in text_of(book / "use" / "python.html").replace(" ", "")
    assert "Repetition" in claims and "SwFC" in claims
    assert "benign vector" in text_of(book / "method" / "vectors.html")


def test_all_notebooks_tables_figures_and_commands_are_shown(book):
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert (book / "notebooks" / f"{path.stem}.html").is_file()
    tables, figures = (
        (book / "results" / f"{name}.html").read_text(encoding="utf-8") for name in ("tables", "figures")
    )
    assert all(f"{path.stem}.csv" in tables for path in (ROOT / "tables").glob("*.md") if "smol" not in path.stem)
    assert all(f"{path.stem}.csv" in figures for path in (ROOT / "figures").glob("*.png"))
    # Organisms and the pretrained model share no page.
    assert "_smol.csv" not in tables and "_smol.csv" in (book / "results" / "smol.html").read_text(encoding="utf-8")
    commands = text_of(book / "use" / "commands.html")
    assert all(f"python -m llmva {name}" in commands for name in COMMANDS)


def test_without_a_repository_there_is_no_site(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "PAGES", tmp_path / "none")
    with pytest.raises(InputError, match="built in a clone of the repository"):
        site.assemble(tmp_path / "source")


def test_mathematics_that_cannot_be_drawn_is_an_error(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "site" / "_extensions")
    from docutils.nodes import math
    from mathml import _converted

    assert "<math" in _converted(math("", r"\sigma_a \, v_b^\top"), "inline")
    with pytest.raises(ValueError, match="MathML does not have"):
        _converted(math("", r"\nosuchcommand{x}"), "inline")
