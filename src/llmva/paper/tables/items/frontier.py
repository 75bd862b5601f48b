"""Every method's front of settings: the area that it leaves behind, and what moving LLM-VA-R's last edit gains."""

import numpy
import pandas

from llmva.core.errors import InputError
from llmva.core.results import remake
from llmva.core.vocabulary import MOVED_LOOP, STRICT_RATES
from llmva.measures.frontier import hypervolume
from llmva.paper.names import count_seeds, describe_runs, name_models, order_methods
from llmva.paper.tables import resampling
from llmva.paper.tables.layout import WORDS, Block, Frames, Table, describe_intervals, read_columns

MEASURES = ("hypervolume", "strict_f1")


def build_frontier(results: Frames) -> Frames:
    """Return one row per method: means over runs of the hypervolume and of the chosen setting's strict F1.

    The mean is over models, of the means over their seeds; its interval is that of a bootstrap over models and, within
    them, seeds, and nan below six runs. p is from the exact Wilcoxon test of LLM-VA-R, beta against the row, paired by
    run. The further CSV `runs` holds what the means are made of.

    Raises
    ------
    InputError
        When a method has no result for one of the runs.
    """
    rows = results["frontier"]
    points = rows[rows["metric"].isin(STRICT_RATES)]
    fronts = points.pivot(index=["model", "method", "trial"], columns="metric", values="value")[list(STRICT_RATES)]
    runs = pandas.DataFrame(
        {
            "hypervolume": fronts.groupby(["model", "method"]).apply(lambda front: hypervolume(front.to_numpy())),
            "settings": fronts.groupby(["model", "method"]).size(),
            "strict_f1": rows[rows["metric"] == "strict_f1"].set_index(["model", "method"])["value"],
        }
    )
    wide = {name: _by_method(runs[name]) for name in MEASURES}
    models = wide["hypervolume"].index
    draws = resampling.draw_runs(models.map(name_models(models)), "frontier")
    table = []
    for method in order_methods(wide["hypervolume"]):
        row = {"method": method, "runs": len(models)}
        row["settings"] = draws.mean(runs["settings"].unstack("method")[method])
        for name, values in wide.items():
            row |= {f"{name}_{part}": number for part, number in _summarise(values, method, draws).items()}
        table.append(row)
    return {"": pandas.DataFrame(table), "runs": runs.reset_index()}


def _by_method(values: pandas.Series) -> pandas.DataFrame:
    wide = values.unstack("method")
    for method in wide.columns[wide.isna().any()]:
        lacking = wide.index[wide[method].isna()][0]
        raise InputError(f"results of {lacking}: {method} is missing; run {remake('frontier', lacking)}")
    return wide


def _summarise(values: pandas.DataFrame, method: str, draws: resampling.DrawnRuns) -> dict[str, float]:
    column, enough = values[method], len(values) >= resampling.MIN_RUNS
    low, high, _ = draws.interval(column.to_numpy()[draws.runs]) if enough else (numpy.nan,) * 3
    return {
        "mean": draws.mean(column),
        "mean_low": low,
        "mean_high": high,
        "worst": column.min(),
        "p": resampling.paired_p(values[MOVED_LOOP], column) if MOVED_LOOP in values else numpy.nan,
    }


def _show(frames: Frames) -> list[Block | str]:
    table, words, slugs = frames[""], WORDS["frontier"], frames["runs"]["model"].unique()
    runs = {"runs": describe_runs(count_seeds(slugs)), "intervals": describe_intervals(len(slugs))}
    columns = [column for column in read_columns("frontier") if len(slugs) > 1 or column.form != "p_value"]
    tests = words["tests" if len(slugs) > 1 else "no_tests"]
    return [Block(table, columns, f"{words['caption'].format(**runs)} {tests}"), words["note"]]


TABLE = Table(("frontier",), "The trade-off", build_frontier, _show)
