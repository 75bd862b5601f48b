"""LLM-VA-R beside its parts, LLM-VA and baselines, over organisms: means, worst cases and paired tests."""

import numpy
import pandas
from statsmodels.stats.multitest import multipletests

from llmva.core.errors import InputError
from llmva.core.params import SEED_SUFFIX
from llmva.core.provenance import random_generator
from llmva.paper.names import order_methods
from llmva.paper.tables import resampling
from llmva.paper.tables.formats import Column, as_count, as_decimal, as_p_value, as_score, as_text
from llmva.paper.tables.layout import Block, Table
from llmva.paper.tables.runs import SEED

REFERENCE, PAPER = "LLM-VA-R", "LLM-VA"
METRICS = {
    "test_strict_f1": "strict F1, test",
    "transfer_strict_f1": "strict F1, transfer",
    "kept": "utility kept",
    "kept_gsm": "arithmetic kept",
}
# What the comparison with LLM-VA was to be about, said before it was made.
COMPARED = ("test_strict_f1", "transfer_strict_f1", "kept")
PARTS = ("mean", "mean_low", "mean_high", "sd", "worst", "p", "p_paper")
# On validation: the best strict F1 of the whole loop, and before the iteration at which the stop rule strikes.
STOPPING = {"best": "best_validation", "before_stop": "best_before_stop"}
COLUMNS = ("method", "studies", *(f"{metric}_{part}" for metric in METRICS for part in PARTS))


def make_table() -> Table:
    """Return the display item `ridge`."""
    return Table("LLM-VA-R", ("ridge",), build_ridge, _blocks, _notes)


def build_ridge(results: dict[str, pandas.DataFrame]) -> dict[str, pandas.DataFrame]:
    """Return one row per method: mean, SD (ddof 1), worst, p of LLM-VA-R against it and of it against LLM-VA.

    The mean is over families, of the means over their seeds; SD and worst are over all studies.
    Each slug is a study of its own, seeds included. The interval of the mean is that of a bootstrap over families
    and, within them, seeds; the prompts are not drawn anew. p is from the exact two-sided Wilcoxon signed-rank test of
    the paired studies; undefined where fewer than two differ.

    Raises
    ------
    InputError
        When a method has no result for one of the studies.
    """
    rows = _final_numbers(results["ridge"])
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
            # Families count alike, as in the bootstrap, however many seeds each has.
            mean = own.groupby(families).mean().mean()
            numbers = (mean, low, high, own.std(ddof=1), own.min(), resampling.paired_p(values[REFERENCE], own))
            numbers += (resampling.paired_p(own, values[PAPER]) if PAPER in values else numpy.nan,)
            row |= {f"{metric}_{name}": number for name, number in zip(PARTS, numbers, strict=True)}
        table.append(row)
    frames = {"": pandas.DataFrame(table)[list(COLUMNS)], "studies": _studies(wide)}
    stop = _stop_rule(rows, methods)
    return frames if stop.empty else {**frames, "stop": stop}


def _final_numbers(rows: pandas.DataFrame) -> pandas.DataFrame:
    return rows[rows["iteration"].isna()] if "iteration" in rows else rows


def _stop_rule(rows: pandas.DataFrame, methods: list[str]) -> pandas.DataFrame:
    """Return how often the stop rule strikes, and what is lost by it: one row per loop."""
    found = rows[rows["metric"].isin(["stop_rule", *STOPPING.values()])]
    wide = found.pivot(index=["method", "model"], columns="metric", values="value")
    wide = wide.reindex(columns=["stop_rule", *STOPPING.values()])
    groups = wide.groupby("method")
    table = groups["stop_rule"].agg(struck="count", studies="size")
    for name, metric in STOPPING.items():
        table[name] = groups[metric].mean()
    lost = (wide[STOPPING["best"]] - wide[STOPPING["before_stop"]]).groupby("method").max()
    table["most_lost"] = lost
    return table.loc[[name for name in methods if name in table.index]].reset_index()


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
    columns["test_strict_f1_p_paper"] = Column("strict F1, test: p against LLM-VA", as_p_value)
    caption = (
        "Means and worst cases over studies. In brackets 95 % intervals: bootstrap over families, then seeds. "
        "p: exact Wilcoxon test of LLM-VA-R against the row, paired by study; the last one of the row against LLM-VA."
    )
    stop = {
        "method": Column("Method", as_text),
        "struck": Column("Stop rule struck", as_count),
        "studies": Column("of", as_count),
        "best": Column("Best strict F1", as_decimal),
        "before_stop": Column("before it struck", as_decimal),
        "most_lost": Column("Most lost by it", as_decimal),
    }
    told = (
        "A stop rule: end where v_a's mean validation accuracy lies 0.1 below its start. How often it strikes, and the "
        "best strict F1 on validation prompts without it and with it."
    )
    blocks = [Block(frames[""], columns, ("method",), caption)]
    return [*blocks, Block(frames["stop"], stop, ("method",), told, name="stop")] if "stop" in frames else blocks


def _corrected(table: pandas.DataFrame) -> list[str]:
    """Return what is left of LLM-VA-R's lead over LLM-VA when its three comparisons are corrected for their number."""
    own = table.set_index("method").loc[REFERENCE]
    named = {name: own[f"{name}_p_paper"] for name in COMPARED}
    if numpy.isnan(list(named.values())).any():
        return []
    corrected = multipletests(list(named.values()), method="holm")[1]
    told = ", ".join(f"{METRICS[name]} {p:.3f}" for name, p in zip(named, corrected, strict=True))
    return [f"{REFERENCE} against {PAPER}, p corrected for three comparisons (Holm): {told}."]


def _notes(frames: dict[str, pandas.DataFrame]) -> list[str]:
    count = int(frames[""]["studies"].iloc[0])
    return [
        *_corrected(frames[""]),
        f"{count} studies, each an organism and seed of its own. No p-value in the table is corrected for their "
        "number. All organisms share one corpus, so that they are less than as many independent confirmations.",
    ]
