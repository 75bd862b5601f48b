"""What is not known where no reply could be graded: nan in the report, and never a number."""

import pandas

from llmva.core.vocabulary import ERROR_RATE
from llmva.measures.metrics import POOLED_METRICS

# Stands where there is no number.
NOTHING = "\u2013"
ENDS = ("", "_low", "_high")


def blank_ungraded(results: pandas.DataFrame, rows: dict[str, pandas.DataFrame]) -> pandas.DataFrame:
    """Return results with nan in place of each rate and score that no graded reply stands behind.

    An ungraded reply counts as wrong beside graded ones, so that nobody gains by it; alone it says nothing.

    Parameters
    ----------
    results : DataFrame
        As `measures.intervals.with_intervals` gives them: method, dataset, metric, value, n.
    rows : dict of str to DataFrame
        The judged prompts that they were measured on, by method.
    """
    unknown = {(method, name + end) for method, table in rows.items() for name in _ungraded(table) for end in ENDS}
    blank = [pair in unknown for pair in zip(results["method"], results["metric"], strict=True)]
    return results.assign(value=results["value"].mask(blank))


def has_graded(rows: pandas.DataFrame, by: list[str]) -> pandas.Series:
    """Tell for each group whether one of its replies could be graded: bool, indexed by group."""
    return rows["guard_verdict"].ne("unparsed").groupby([rows[name] for name in by]).any()


def _ungraded(rows: pandas.DataFrame) -> list[str]:
    graded = has_graded(rows, ["dataset", "label"])
    names = [f"{dataset}_{ERROR_RATE[label]}" for dataset, label in graded[~graded].index]
    by_label = graded.groupby("label").any()
    names += [ERROR_RATE[label] for label in by_label[~by_label].index]
    return names if by_label.any() else [*names, *POOLED_METRICS, "mcnemar_p"]
