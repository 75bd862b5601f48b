"""The README's numbers are those of the committed results."""

import pytest
from test_committed import MODELS, committed  # noqa: F401

from llmva import paths
from llmva.results import read_results

METHODS = ["Original", "VectorSteer", "LLM-VA"]
SEEDS = {base: [base, f"{base}-s1", f"{base}-s2"] for base in ("tiny-llama", "tiny-qwen2")}


def mean_rows():
    """One row per method: the mean of the six organisms' rates and scores."""
    table = read_results("table2", MODELS)
    table = table[table["dataset"] == "all"].groupby(["method", "metric"])["value"].mean().unstack()
    for method in METHODS:
        row = table.loc[method]
        rates = [f"{100 * row[name]:.1f} %" for name in ("asr", "orr", "degenerate")]
        scores = [f"{row[name]:.3f}" for name in ("f1", "strict_f1", "balanced_accuracy")]
        yield f"| {method} | {' | '.join([*rates, *scores])} |"


def kept_rows():
    """One row per method: the mean share of each task's accuracy that is kept."""
    table = read_results("utility", MODELS)
    table = table[table["metric"] == "kept"].groupby(["method", "dataset"])["value"].mean().unstack()
    for method in METHODS[1:]:
        shares = [f"{table.at[method, task]:.2f}" for task in ("cola", "mnli", "rte", "mrpc", "sst", "gsm")]
        yield f"| {method} | {' | '.join(shares)} | {table.loc[method].mean():.2f} |"


def seed_rows():
    """One row per organism with three seeds: the strict F1 of each, before and after."""
    for base, slugs in SEEDS.items():
        table = read_results("table2", slugs)
        strict = table[table["metric"] == "strict_f1"].pivot(index="model", columns="method", values="value")
        pairs = [f"{strict.at[slug, 'Original']:.3f} → {strict.at[slug, 'LLM-VA']:.3f}" for slug in slugs]
        yield f"| {base} | {' | '.join(pairs)} | {strict['LLM-VA'].std():.3f} |"


@pytest.mark.parametrize("rows", [mean_rows, kept_rows, seed_rows])
def test_every_row_stands_in_the_readme(committed, monkeypatch, rows):  # noqa: F811
    monkeypatch.setattr(paths, "RESULTS", committed / "results")
    text = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    for row in rows():
        assert row in text


def test_the_gain_is_told_for_each_organism(committed, monkeypatch):  # noqa: F811
    monkeypatch.setattr(paths, "RESULTS", committed / "results")
    table = read_results("table2", MODELS)
    f1 = table[table["metric"] == "f1"].pivot(index="model", columns="method", values="value")
    gain = f1["LLM-VA"] / f1["Original"] - 1
    text = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{100 * gain.mean():.0f} % on the mean, {100 * gain.min():.0f} % at the least" in text


def test_the_gamed_iteration_is_on_record(committed, monkeypatch):  # noqa: F811
    monkeypatch.setattr(paths, "RESULTS", committed / "results")
    history = read_results("history", ["tiny-phi3"]).set_index("metric")["value"]
    loose, strict, broken = (history[f"{name}.011"] for name in ("f1", "strict_f1", "degenerate"))
    text = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    assert f"loose F1 of {loose:.3f} on validation while {100 * broken:.0f} % of its replies are broken" in text
    assert f"its strict F1 is {strict:.3f}" in text
