"""The tables of README and of the site's home page, from `tables/`: what a reader is to see first."""

from pathlib import Path

import pandas

SHOWN = ("Original", "AlphaSteer+", "Fine-tuning", "LLM-VA", "LLM-VA-R", "Two-sided StMP")
HEAD = "| Method | strict F1 [95 %] | worst run |"


def overview_rows(tables: Path) -> list[str]:
    """Return the organisms' table in Markdown, a row per method: averages over models and seeds, and the worst run."""
    table2, table4 = (
        pandas.read_csv(tables / f"{name}.csv").set_index(["model", "method"]).loc["mean"]
        for name in ("table2", "table4")
    )
    kept = pandas.read_csv(tables / "utility.csv").query("model == 'mean'").set_index(["method", "task"])["kept"]
    return [
        "| {method} | {strict_f1:.3f} [{strict_f1_low:.3f}, {strict_f1_high:.3f}] | {strict_f1_worst:.3f} | {f1:.3f} | "
        "{broken:.1f} % | {unseen:.3f} | {utility:.3f} | {arithmetic:.3f} |".format(
            **row,
            method=method,
            broken=100 * row["degenerate"],
            unseen=table4.loc[method, "strict_f1"],
            utility=kept[method, "mean"],
            arithmetic=kept[method, "gsm"],
        )
        for method, row in table2.loc[list(SHOWN)].iterrows()
    ]


def with_rows(text: str, tables: Path) -> str:
    """Return README's text with the rows of the organisms' table as `tables/` has them now."""
    start = text.index(HEAD)
    head, *_ = text[start:].split("\n\n", 1)
    names = head.splitlines()[:2]
    return text.replace(head, "\n".join([*names, *overview_rows(tables)]))
