"""The README's numbers are those of the committed tables."""

import re

import nbformat
import pandas
from test_committed import committed  # noqa: F401

from llmva.core import paths
from llmva.core.paths import ROOT
from llmva.paper.tables import TABLES

TASKS = ("cola", "mnli", "rte", "mrpc", "sst", "gsm", "mean")


def mean_rows(folder):
    """One row per printed method: the means over models and seeds, and the worst run."""
    table2, table4 = (pandas.read_csv(folder / f"{name}.csv").set_index(["model", "method"]) for name in
                      ("table2", "table4"))  # fmt: skip
    kept = pandas.read_csv(folder / "utility.csv").set_index(["model", "method", "task"])["kept"]
    for method in table2.loc["mean"].index:
        if "(" in method and not method.startswith("LLM-VA"):
            continue
        row, transfer = table2.loc["mean", method], table4.loc["mean", method]
        cells = [f"{row['strict_f1']:.3f} [{row['strict_f1_low']:.3f}, {row['strict_f1_high']:.3f}]",
                 f"{row['strict_f1_worst']:.3f}", f"{row['f1']:.3f}", f"{100 * row['degenerate']:.1f} %",
                 f"{transfer['strict_f1']:.3f}", f"{kept['mean', method, 'mean']:.2f}",
                 f"{kept['mean', method, 'gsm']:.2f}"]  # fmt: skip
        yield f"| {method} | {' | '.join(cells)} |"


def test_every_row_stands_in_the_readme(committed):  # noqa: F811
    text = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    rows = list(mean_rows(committed / "tables"))
    assert len(rows) >= 14
    for row in rows:
        assert row in text


def test_no_old_row_is_left_in_the_readme(committed):  # noqa: F811
    text = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## What comes out") : text.index("## Content note")]
    shown = [line for line in section.splitlines() if line.startswith("| ") and " [" in line and "Method" not in line]
    assert shown == list(mean_rows(committed / "tables"))


def test_the_noised_model_is_on_record(committed):  # noqa: F811
    noise = pandas.read_csv(committed / "results" / "tiny-llama" / "noise.csv").set_index(["metric", "noise"])["value"]
    loose, strict, broken = (noise[(name, 1.0)] for name in ("f1", "strict_f1", "degenerate"))
    text = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    told = f"loose F1 is {loose:.3f}, strict F1 {strict:.3f}, and {100 * broken:.0f} % of the replies are broken"
    assert told in text
    table = pandas.read_csv(committed / "tables" / "table2.csv").set_index(["model", "method"])
    share = table.loc[("mean", "LLM-VA (released code)"), "degenerate"]
    assert f"takes models of whose replies {100 * share:.0f} % are broken on average" in text


WORDS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip


def test_how_the_papers_loop_fares_is_told_as_it_is(committed):  # noqa: F811
    runs = pandas.read_csv(committed / "tables" / "table2_seeds.csv")
    scores = runs[runs["method"] == "LLM-VA"].set_index("model")["strict_f1"]
    high, middle = scores[scores > 0.9], scores[scores.between(0.7, 0.9)]
    families = scores.groupby(scores.index.str.replace(r"-s\d+$", "", regex=True))
    spread, between = families.std(), families.mean().std()
    text = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    assert len(runs["model"].unique()) == 18
    assert (
        f"In {WORDS[len(high)]} of the eighteen runs it reaches a strict F1 above 0.9, in {WORDS[len(middle)]} more "
        f"one of {middle.min():.2f} to {middle.max():.2f}; in the other {WORDS[18 - len(high) - len(middle)]} it"
    ) in text
    assert f"(a standard deviation of {spread.min():.2f} to {spread.max():.2f} against {between:.2f})" in text
    broken = runs[runs["method"] == "LLM-VA (released code)"]["degenerate"]
    assert f"most of them in {WORDS[(broken > 0.1).sum()]} of the eighteen runs" in text


def score_of(folder, slug):
    """Return the paper's loop's strict F1 in a study."""
    rows = pandas.read_csv(folder / "results" / slug / "table2.csv")
    return rows.loc[(rows["method"] == "LLM-VA") & (rows["metric"] == "strict_f1"), "value"].item()


def test_the_spread_over_seeds_of_the_study_is_on_record(committed):  # noqa: F811
    qwen, llama = ([score_of(committed, f"tiny-{name}{end}") for end in ("", "-draw1")] for name in ("qwen2", "llama"))
    assert f"{llama[0]:.2f}" == f"{llama[1]:.2f}"
    told = f"moves it from {qwen[0]:.3f} to {qwen[1]:.3f} on tiny-qwen2, and leaves it at {llama[0]:.2f} on tiny-llama"
    assert told in (paths.ROOT / "README.md").read_text(encoding="utf-8")


def told_of_fresh(folder):
    """Return the sentence on the organisms that no choice was made on."""
    table = pandas.read_csv(folder / "ridge.csv").set_index("method")
    ours, paper, tuned = table.loc["LLM-VA-R"], table.loc["LLM-VA"], table.loc["Fine-tuning"]
    scores = [f"{row['test_strict_f1_mean']:.3f} (worst {row['test_strict_f1_worst']:.3f})" for row in (ours, paper)]
    return (
        f"On {int(ours['studies'])} organisms of seeds that no choice was made on, its strict F1 is {scores[0]}, "
        f"beside {scores[1]} of LLM-VA and {tuned['test_strict_f1_mean']:.3f} of fine-tuning; "
        f"{ours['transfer_strict_f1_mean']:.3f} on unseen sets; and {ours['kept_mean']:.3f} of the utility is kept."
    )


def test_the_fresh_organisms_are_on_record(committed):  # noqa: F811
    assert told_of_fresh(committed / "tables") in (paths.ROOT / "README.md").read_text(encoding="utf-8")


def test_every_table_is_named_in_the_readme():
    text = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"`{item}`" in text for item in TABLES)


def test_the_first_notebook_has_the_same_map_as_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("| Item of the paper |") :].split("\n\n")[0]
    first = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4)
    assert any(table in cell.source for cell in first.cells if cell.cell_type == "markdown")
    named = set(re.findall(r"`(\d\d_\w+)`", table))
    assert named == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
