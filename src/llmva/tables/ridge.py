"""LLM-VA-R beside its parts, LLM-VA and baselines, over organisms: means, worst cases and paired tests."""

import pandas

from llmva.errors import InputError
from llmva.params import SEED_SUFFIX
from llmva.provenance import random_generator
from llmva.tables import resampling
from llmva.tables.display import Block, Table
from llmva.tables.main_rows import SEED
from llmva.tables.printing import Column, as_decimal, as_p_value, as_score, as_text
from llmva.tables.rows import order_methods

REFERENCE = "LLM-VA-R"
METRICS = {
    "test_strict_f1": "strict F1, test",
    "transfer_strict_f1": "strict F1, transfer",
    "kept": "utility kept",
    "kept_gsm": "arithmetic kept",
}
PARTS = ("mean", "mean_low", "mean_high", "sd", "worst", "p")
COLUMNS = ("method", "studies", *(f"{metric}_{part}" for metric in METRICS for part in PARTS))


def make_table() -> Table:
    """Return the display item `ridge`."""
    return Table("LLM-VA-R", ("ridge",), build_ridge, _blocks, _notes)


def build_ridge(results: dict[str, pandas.DataFrame]) -> dict[str, pandas.DataFrame]:
    """Return one row per method: mean, SD (ddof 1), worst, and p of LLM-VA-R against it, over all studies.

    Each slug is a study of its own, seeds included. The interval of the mean is that of a bootstrap over families
    and, within them, seeds; the prompts are not drawn anew. p is from the exact two-sided Wilcoxon signed-rank test of
    the paired studies; undefined where fewer than two differ.

    Raises
    ------
    InputError
        When a method has no result for one of the studies.
    """
    rows = results["ridge"]
    wide = {metric: _wide(rows, metric) for metric in METRICS}
    methods = order_methods(rows["method"])
    studies = next(iter(wide.values())).index
    families = [SEED_SUFFIX.sub("", slug) for slug in studies]
    draws = resampling.draw_runs(families, generator=random_generator(SEED, "hierarchical bootstrap", "ridge"))
    table = []
    for method in methods:
        row = {"method": method, "studies": len(studies)}
        for metric, values in wide.items():
            own = values[method]
            drawn = resampling.average(own.to_numpy()[draws.runs], draws)
            low, high, _ = resampling.percentile_interval(drawn)
            numbers = (own.mean(), low, high, own.std(ddof=1), own.min(), resampling.paired_p(values[REFERENCE], own))
            row |= {f"{metric}_{name}": number for name, number in zip(PARTS, numbers, strict=True)}
        table.append(row)
    return {"": pandas.DataFrame(table)[list(COLUMNS)], "studies": _studies(wide)}


def _wide(rows: pandas.DataFrame, metric: str) -> pandas.DataFrame:
    wide = rows[rows["metric"] == metric].pivot(index="model", columns="method", values="value")
    if wide.empty or wide.isna().any(axis=None) or REFERENCE not in wide:
        raise InputError(f"results of ridge: {metric} missing for a method or a study; run `make fresh` again")
    return wide


def _studies(wide: dict[str, pandas.DataFrame]) -> pandas.DataFrame:
    tables = [values.stack().rename(metric) for metric, values in wide.items()]
    return pandas.concat(tables, axis=1).reset_index()


def _blocks(frames: dict[str, pandas.DataFrame]) -> list[Block]:
    columns = {"method": Column("Method", as_text)}
    for metric, heading in METRICS.items():
        columns |= {
            f"{metric}_mean": Column(heading, as_score, "high"),
            f"{metric}_worst": Column(f"{heading}: worst", as_decimal, "high"),
            f"{metric}_p": Column(f"{heading}: p", as_p_value),
        }
    caption = (
        "Means and worst cases over studies. In brackets 95 % intervals: bootstrap over families, then seeds. "
        "p: exact Wilcoxon test of LLM-VA-R against the row, paired by study."
    )
    return [Block(frames[""], columns, ("method",), caption)]


def _notes(frames: dict[str, pandas.DataFrame]) -> list[str]:
    count = int(frames[""]["studies"].iloc[0])
    return [
        f"{count} studies, each an organism and seed of its own. No p-value is corrected for their number. All "
        "organisms share one corpus, so that they are less than as many independent confirmations."
    ]
