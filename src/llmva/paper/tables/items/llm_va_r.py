"""LLM-VA-R beside its parts, LLM-VA and baselines, over organisms: means, worst cases and paired tests."""

import numpy
import pandas
from statsmodels.stats.multitest import multipletests

from llmva.core.errors import InputError
from llmva.core.vocabulary import MOVED_LOOP, OUR_LOOP, PAPER_LOOP
from llmva.paper.names import count_seeds, describe_runs, name_models, order_methods
from llmva.paper.tables import resampling
from llmva.paper.tables.layout import WORDS, Block, Frames, Table, read_columns

# What the comparison with LLM-VA was to be about, said before it was made.
COMPARED = {
    "test_strict_f1": "strict F1, test",
    "transfer_strict_f1": "strict F1, transfer",
    "kept": "utility kept",
}
ARITHMETIC = "kept_gsm"
# On validation: the best strict F1 of the whole loop, and before the iteration at which the stop rule strikes.
STOPPING = ["stop_rule", "best_validation", "best_before_stop"]


def build_ridge(results: Frames) -> Frames:
    """Return one row per method: mean, SD (ddof 1), worst, p of LLM-VA-R against it and of it against LLM-VA.

    The mean is over families, of the means over their seeds; SD and worst are over all studies.
    Each slug is a study of its own, seeds included. The interval of the mean is that of a bootstrap over families
    and, within them, seeds; the prompts are not drawn anew. p is from the exact two-sided Wilcoxon signed-rank
    test of the paired studies; undefined where fewer than two differ. Arithmetic is left out where no study has it.

    Raises
    ------
    InputError
        When a method has no result for one of the studies.
    """
    # Rows of an iteration are the curves of Figure 13.
    rows = results["ridge"]
    if "iteration" not in rows:
        raise InputError("results of ridge: no column 'iteration'; run `make fresh` again")
    rows = rows[rows["iteration"].isna()]
    metrics = [*COMPARED, *([ARITHMETIC] if ARITHMETIC in set(rows["metric"]) else [])]
    wide = {metric: _wide(rows, metric) for metric in metrics}
    studies, methods = wide["kept"].index, order_methods(rows["method"])
    draws = resampling.draw_runs(studies.map(name_models(studies)), "ridge")
    table = []
    for method in methods:
        row = {"method": method, "studies": len(studies)}
        for metric, values in wide.items():
            row |= {f"{metric}_{name}": number for name, number in summarize(values, method, draws).items()}
        table.append(row)
    stop = _stop_rule(rows, methods)
    by_study = pandas.DataFrame({metric: values.stack() for metric, values in wide.items()}).reset_index()
    return {"": pandas.DataFrame(table), "studies": by_study, **({} if stop.empty else {"stop": stop})}


def summarize(values: pandas.DataFrame, method: str, draws: resampling.DrawnRuns) -> dict[str, float]:
    """Return mean, interval, SD, worst and paired tests of a method's column of `values`, (runs, methods).

    See `build_ridge`.
    """
    column = values[method]
    low, high, _ = draws.interval(column.to_numpy()[draws.runs])
    return {
        # Families count alike, as in the bootstrap, however many seeds each has.
        "mean": draws.mean(column),
        "mean_low": low,
        "mean_high": high,
        "sd": column.std(ddof=1),
        "worst": column.min(),
        "p": resampling.paired_p(values[OUR_LOOP], column),
        "p_paper": resampling.paired_p(column, values[PAPER_LOOP]) if PAPER_LOOP in values else numpy.nan,
    }


def _wide(rows: pandas.DataFrame, metric: str) -> pandas.DataFrame:
    wide = rows[rows["metric"] == metric].pivot(index="model", columns="method", values="value")
    if wide.empty or wide.isna().any(axis=None) or OUR_LOOP not in wide:
        raise InputError(f"results of ridge: {metric} missing for a method or a study; run `make fresh` again")
    return wide


def _stop_rule(rows: pandas.DataFrame, methods: list[str]) -> pandas.DataFrame:
    """Return how often the stop rule strikes, and what is lost by it: one row per loop."""
    wide = rows[rows["metric"].isin(STOPPING)].pivot(index=["method", "model"], columns="metric", values="value")
    wide = wide.reindex(columns=STOPPING).set_axis(["struck", "best", "before_stop"], axis=1)
    groups = wide.assign(lost=wide["best"] - wide["before_stop"]).groupby("method")
    table = groups["struck"].agg(struck="count", studies="size").join(groups[["best", "before_stop"]].mean())
    table["most_lost"] = groups["lost"].max()
    return table.loc[[name for name in methods if name in table.index]].reset_index()


def _show(frames: Frames) -> list[Block | str]:
    table, words = frames[""], WORDS["ridge"]
    stop = []
    if "stop" in frames:
        stop = [Block(frames["stop"], read_columns("ridge", "stop_columns"), words["stop"], "stop")]
    note = words["note"].format(studies=int(table["studies"].iloc[0]))
    columns = [column for column in read_columns("ridge") if column.source in table]
    caption = words["caption"].format(runs=describe_runs(count_seeds(frames["studies"]["model"])))
    return [Block(table, columns, caption), *stop, *_corrected(table), note]


def _corrected(table: pandas.DataFrame) -> list[str]:
    """Return what is left of two leads when the three comparisons of each are corrected for their number.

    That of LLM-VA-R over LLM-VA, and that of LLM-VA-R with a beta over LLM-VA-R.
    """
    rows, sentences = table.set_index("method"), []
    for ahead, behind, row, suffix in (
        (OUR_LOOP, PAPER_LOOP, OUR_LOOP, "p_paper"),
        (MOVED_LOOP, OUR_LOOP, MOVED_LOOP, "p"),
    ):
        p_values = rows.reindex([row])[[f"{name}_{suffix}" for name in COMPARED]].iloc[0].astype(float)
        if p_values.notna().all():
            corrected = zip(COMPARED.values(), multipletests(p_values, method="holm")[1], strict=True)
            words = ", ".join(f"{name} {p:.3f}" for name, p in corrected)
            sentences.append(f"{ahead} against {behind}, p corrected for three comparisons (Holm): {words}.")
    return sentences


TABLE = Table(("ridge",), OUR_LOOP, build_ridge, _show)
