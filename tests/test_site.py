"""The package as a book: built without a warning, whole, small, with nothing to fetch, and so in a browser as well."""

import csv
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pandas
import pytest
from conftest import prompt_table, save_random_model
from test_alignment import DigestJudge

import llmva
from llmva.commands import site
from llmva.commands.console import COMMANDS
from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.paths import ROOT
from llmva.models.chat_model import load_model

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


def test_every_link_to_a_part_of_a_page_finds_it(book):
    @functools.cache
    def parts_of(page: Path) -> set[str]:
        return set(re.findall(r'\sid="([^"]+)"', page.read_text(encoding="utf-8")))

    # Those of the code as well: its [docs] lead back to what is documented.
    dead = [
        (str(page.relative_to(book)), link)
        for page in book.rglob("*.html")
        for link in map(unescape, re.findall(r'<a[^>]*\shref="([^"]*#[^"]+)"', page.read_text(encoding="utf-8")))
        if not re.match(r"[a-z]+:", link)
        and unquote(link.partition("#")[2]) not in parts_of((page.parent / link.partition("#")[0]).resolve()
                                                            if link[0] != "#" else page)
    ]  # fmt: skip
    assert dead == []
    (log,) = book.glob("_modules/llmva/edits/log.html")
    assert "python.html#llmva.edits.log.EditLog.edits_of" in log.read_text(encoding="utf-8")


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
    assert "does not hold" in claims and "Where the papers' claims fail" in claims.replace("’", "'")
    assert "llmva.align(model,tokenizer,prompts)" in text_of(book / "use" / "python.html").replace(" ", "")
    assert "repetition in turn 9" in claims and "SwFC" in claims
    # Each claim names its notebook, and each notebook its cost.
    assert claims.count("12_runtime_steering") >= 36 and claims.count("10_transferability") >= 3
    assert "9 to 12 min per tiny model" in claims
    assert "benign vector" in text_of(book / "method" / "vectors.html")


def test_what_is_said_of_the_second_paper_is_what_its_table_says(book):
    with (ROOT / "tables" / "runtime_claims.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    said = text_of(book / "paper.html")

    def verdicts(beginning, *methods):
        return {row["verdict"] for row in rows if row["claim"].startswith(beginning) and row["method"] in methods}

    assert verdicts("trait", "SwFC", "StTP", "StMP") == {"holds"} and "All three methods bring the trait back" in said
    assert verdicts("coherence,", "SwFC") == {"does not hold"} and verdicts("coherence,", "StTP", "StMP") == {
        "cannot be told"
    }
    assert verdicts("coherence above", "StTP", "StMP") == {"holds"}
    assert "SwFC loses the coherence that the paper asks for" in said and "but they keep more of it than SwFC" in said
    assert verdicts("repetition", "SwFC") == {"cannot be told"} and "Nor do six runs tell whether SwFC repeats" in said
    for claim in ("repetition", "mean change", "share of neutral"):
        assert verdicts(claim, "StMP") == {"holds"}
    assert "StMP repeats itself less than SwFC in the last turn, changes the stream less, and keeps more" in said


def test_all_notebooks_tables_figures_and_commands_are_shown(book):
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert (book / "notebooks" / f"{path.stem}.html").is_file()
    tables, figures = (
        (book / "results" / f"{name}.html").read_text(encoding="utf-8") for name in ("tables", "figures")
    )
    assert all(f"{path.stem}.csv" in tables for path in (ROOT / "tables").glob("*.md") if "smol" not in path.stem)
    assert all(f"{path.stem}.csv" in figures for path in (ROOT / "figures").glob("*.png"))
    # Each says what it is, and where it is made.
    # `performance` has a CSV alone.
    assert tables.count("notebook <a") == 1 + sum("smol" not in path.stem for path in (ROOT / "tables").glob("*.md"))
    assert figures.count("notebook <a") == len(list((ROOT / "figures").glob("*.png")))
    # Organisms and the pretrained model share no page.
    assert "_smol.csv" not in tables and "_smol.csv" in (book / "results" / "smol.html").read_text(encoding="utf-8")
    commands = text_of(book / "use" / "commands.html")
    assert all(f"python -m llmva {name}" in commands for name in COMMANDS)


def test_every_file_of_tables_can_be_had_from_a_page_and_every_table_can_be_sorted(book):
    pages = [(book / "results" / f"{name}.html").read_text(encoding="utf-8") for name in ("tables", "smol")]
    offered = set(re.findall(r'href="[^"]*_downloads/\w+/([^"]+)"', "".join(pages)))
    assert {path.name for path in (ROOT / "tables").iterdir() if path.suffix != ".md"} <= offered
    for page in pages:
        assert all("docutils" in table for table in re.findall(r"<table[^>]*>", page))
    # What has no Markdown, and what is elsewhere.
    said = text_of(book / "results" / "tables.html")
    assert "solver, exact one converged" in said and "`examples`" not in said and "among them examples , are" in said


def test_marks_say_their_numbers_under_the_mouse(book):
    page = (book / "results" / "hover.html").read_text(encoding="utf-8")
    with (ROOT / "figures" / "figure17.csv").open(encoding="utf-8") as file:
        row = next(row for row in csv.DictReader(file) if row["method"] == "LLM-VA-R")
    said = f"LLM-VA-R: {float(row['strict_asr']):.3f} of toxic not refused, {float(row['strict_orr']):.3f} of benign"
    assert said in page and "<title>layer 1, alpha 1: trait " in page
    assert "Means over three persona organisms with two seeds each" in page
    assert page.count("<svg viewBox") >= 12 and "<script" not in page[page.index("<article") : page.index("</article")]


def test_without_a_repository_there_is_no_site(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "PAGES", tmp_path / "none")
    with pytest.raises(InputError, match="built in a clone of the repository"):
        site.assemble(tmp_path / "source")


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files; name an empty or a new folder"):
        site.assemble(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_mathematics_that_cannot_be_drawn_is_an_error(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "site" / "_extensions")
    from docutils.nodes import math
    from mathml import _converted

    assert "<math" in _converted(math("", r"\sigma_a \, v_b^\top"), "inline")
    with pytest.raises(ValueError, match="MathML does not have"):
        _converted(math("", r"\nosuchcommand{x}"), "inline")


# In a browser

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
WIDTHS = {"desktop": 1280, "phone": 390}
PAGES = (
    "index", "paper", "method/ridge", "results/tables", "results/figures", "results/hover", "results/smol",
    "use/python", "use/reports", "notebooks/05_main_results", "api",
)  # fmt: skip
BOX = "getBoundingClientRect()"
# What axe calls grave: a barrier for some readers.
GRAVE = """
const [done] = [arguments[arguments.length - 1]];
axe.run(document, {resultTypes: ["violations"]}).then(({violations}) => done(
  violations.filter(({impact}) => ["serious", "critical"].includes(impact))
    .map(({id, nodes}) => `${id} x ${nodes.length}: ${nodes[0].html.slice(0, 200)} ${nodes[0].failureSummary}`)));
"""
# Of each table's rows all but the first and the last two.
ALIKE = "document.querySelectorAll('tbody tr:nth-child(n+2):not(:nth-last-child(-n+2))').forEach(row => row.remove())"
in_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER and find_spec("selenium") and find_spec("axe_core_python")),
    reason="no Chromium with its driver (Debian: chromium-driver), or no selenium or axe",
)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and writes no log."""

    def log_message(self, *_) -> None:
        """Write nothing."""


@pytest.fixture(scope="module")
def address(book):
    """Return the address at which the book is served: the search reads its index as a page does."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(book)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    options.add_argument("--headless=new")
    options.add_argument("--disable-gpu")
    options.add_argument("--disable-dev-shm-usage")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="module", params=["align", "steer"])
def report(request, tmp_path_factory):
    """Return the report of a small alignment, and of a small search for a direction."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "RUNS", folder / "runs")
        patch.setattr("llmva.study.study.RefusalJudge", DigestJudge)
        patch.setattr("llmva.judging.degeneracy.is_looping", lambda reply: False)
        patch.setattr("llmva.judging.degeneracy.is_empty", lambda reply: False)
        loaded = load_model(str(save_random_model(folder / "model")))
        model = loaded.model, loaded.tokenizer
        if request.param == "align":
            return llmva.align(*model, prompt_table(40), max_new_tokens=4, iterations=2).report().path
        sides = {"aligned": "be good to people.", "malicious": "be bad to people."}
        pairs = pandas.DataFrame({"prompt": [f"what is rope number {number}?" for number in range(20)], **sides})
        return llmva.steer(*model, pairs, method="SwFC", layers=[2], alphas=[1, 2], max_new_tokens=6).report().path


def requests_of(browser) -> list[str]:
    """Return the addresses that were asked for since the last look."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def barriers_of(browser) -> list[str]:
    """Return what axe finds on the page that is open."""
    script = Path(find_spec("axe_core_python").origin).with_name("axe.min.js")
    browser.execute_script(script.read_text(encoding="utf-8"))
    browser.set_script_timeout(60)
    return browser.execute_async_script(GRAVE)


@in_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_are_whole_in_a_browser(browser, address, width, dark):
    media = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    metrics = {"width": WIDTHS[width], "height": 900, "deviceScaleFactor": 1, "mobile": width == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for page in PAGES:
        browser.get(f"{address}/{page}.html")
        assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"], page
        asked = requests_of(browser)
        assert not [url for url in asked if not url.startswith((address, "data:", "chrome:"))], (page, asked)
        wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, (page, width, wide)
        broken = "return [...document.images].filter(p => p.complete && !p.naturalWidth || !p.alt).map(p => p.src)"
        assert browser.execute_script(broken) == [], page
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, ground.strip("rgba()").split(",")[:3]))
        assert (brightness < 384) is dark, (page, ground)
        if width == "desktop":
            # All rows of all tables would take a quarter of a minute, and rows of one table are alike.
            browser.execute_script(ALIKE if page in ("results/tables", "results/smol") else "")
            assert barriers_of(browser) == [], page


@in_browser
def test_a_planted_barrier_is_found(browser, address):
    browser.get(f"{address}/index.html")
    pale = '<p style="color: #ddd; background: #fff">pale words</p><img src="x.png">'
    browser.execute_script("document.querySelector('article').innerHTML = arguments[0]", pale)
    found = barriers_of(browser)
    assert [barrier.split(" ")[0] for barrier in found] == ["color-contrast", "image-alt"]


@in_browser
def test_mathematics_has_size_and_its_own_font(browser, address):
    browser.get(f"{address}/method/ridge.html")
    browser.execute_async_script("document.fonts.ready.then(arguments[0])")
    assert browser.execute_script("return document.fonts.check('16px \"STIX Two Math\"')")
    heights = browser.execute_script(
        "return [...document.querySelectorAll('math')].map(m => m.getBoundingClientRect().height)"
    )
    assert len(heights) >= 4 and min(heights) > 8
    # An index stands below its letter.
    lowered = f"const [a, i] = document.querySelector('msub').children; return i.{BOX}.bottom - a.{BOX}.bottom"
    assert browser.execute_script(lowered) > 1


@in_browser
def test_the_search_finds_a_term(browser, address):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(f"{address}/search.html?q=benign+vector")
    found = WebDriverWait(browser, 30).until(lambda seen: seen.find_elements(By.CSS_SELECTOR, "ul.search li a"))
    assert any("Control vectors" in link.text for link in found)


@in_browser
def test_a_click_on_a_head_sorts_a_table(browser, address):
    browser.get(f"{address}/index.html")
    head = "document.querySelectorAll('table.docutils thead th')[1]"
    browser.execute_script(f"{head}.click()")
    rows = "[...document.querySelector('table.docutils').tBodies[0].rows]"
    column = f"return {rows}.map(row => parseFloat(row.cells[1].textContent))"
    values = browser.execute_script(column)
    assert values == sorted(values, reverse=True) and len(values) > 3
    browser.execute_script(f"{head}.click()")
    assert browser.execute_script(column) == sorted(values)


def test_the_tracked_reports_have_what_reports_have_now(report):
    def headings(text: str) -> set[str]:
        return set(re.findall("<h2>(.+?)</h2>", text)) - {heading for heading in re.findall("<h2>(On .+?)</h2>", text)}

    kind = "align" if "align-" in str(report) else "steer"
    tracked = (ROOT / "site" / "extra" / "examples" / f"{kind}.html").read_text(encoding="utf-8")
    assert len(headings(tracked)) >= 2 and headings(report.read_text(encoding="utf-8")) <= headings(tracked)
    assert f"llmva {llmva.__version__}" in tracked and str(ROOT) not in tracked


@in_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_reports_are_whole_in_a_browser(browser, report, width):
    metrics = {"width": WIDTHS[width], "height": 900, "deviceScaleFactor": 1, "mobile": width == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    # What the pages before have asked for is none of this one's.
    requests_of(browser)
    browser.get_log("browser")
    browser.get(report.as_uri())
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert [url for url in requests_of(browser) if not url.startswith(("file:", "data:", "chrome:"))] == []
    assert browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth") <= 0
    unnamed = "return [...document.querySelectorAll('svg')].filter(s => !s.getAttribute('aria-label')).length"
    assert browser.execute_script(unnamed) == 0
    assert barriers_of(browser) == []
