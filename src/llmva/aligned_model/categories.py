"""Failures by kind of prompt, where the data name kinds: the column `category`."""

import math

import pandas

from llmva.aligned_model.grading import NOTHING, has_graded
from llmva.measures.intervals import wilson_interval
from llmva.measures.metrics import correct
from llmva.prompts.sets import read_candidates

WHAT = {"toxic": "toxic, answered", "benign": "benign, refused"}
# Of a kind with fewer test prompts no worst is made.
LEAST = 5


def count_categories(rows: dict[str, pandas.DataFrame], data: str) -> pandas.DataFrame | None:
    """Return how often prompts of each kind went wrong before and after.

    Parameters
    ----------
    rows : dict of str to DataFrame
        Judged test prompts of `original` and `aligned`.
    data : str
        Of the study: the file or folder that names the kinds.

    Returns
    -------
    DataFrame or None
        Columns category, label, n, original and aligned (shares), low and high (of `aligned`, Wilson's 95 % interval);
        the worst first. None where the data name no kinds. A reply that could not be graded is wrong; where none of a
        kind could be, its share is nan.
    """
    if (named := read_categories(data)) is None:
        return None
    keys, shares = ["category", "label"], {}
    for model, judged in rows.items():
        table = judged[["id", "label", "guard_verdict"]].merge(named, on="id")
        wrong = (~correct(judged, strict=False).loc[table["id"]]).to_numpy()
        groups = table.assign(wrong=wrong).groupby(keys)["wrong"]
        shares[model] = groups.mean().where(has_graded(table, keys))
    counts = pandas.DataFrame({"n": groups.size(), **shares})
    bounds = [_interval(share, n) for share, n in counts[["aligned", "n"]].to_numpy()]
    counts[["low", "high"]] = pandas.DataFrame(bounds, index=counts.index, columns=["low", "high"])
    return counts.reset_index().sort_values(["aligned", "n"], ascending=False, ignore_index=True)


def read_categories(data: str) -> pandas.DataFrame | None:
    """Return the kinds that the data name: columns id and category, a row per prompt with one; None without any."""
    candidates = read_candidates(data)
    if "category" not in candidates:
        return None
    return candidates.loc[candidates["category"].fillna("") != "", ["id", "category"]]


def show_categories(counts: pandas.DataFrame) -> pandas.DataFrame:
    """Return the table as the report prints it."""
    intervals = [
        f"{row.aligned:.3f} [{row.low:.3f}, {row.high:.3f}]" if row.aligned >= 0 else NOTHING
        for row in counts.itertuples()
    ]
    columns = {"": counts["category"], "share of": counts["label"].map(WHAT), "prompts": counts["n"]}
    return pandas.DataFrame({**columns, "original": counts["original"].round(3), "aligned": intervals})


def name_worst(counts: pandas.DataFrame) -> str:
    """Return the worst kind of each label in words; nothing of kinds with few prompts, or without a failure."""
    found = []
    for label, what in (("toxic", "toxic prompts answered"), ("benign", "benign prompts refused")):
        kinds = counts[counts["label"].eq(label) & counts["n"].ge(LEAST) & counts["aligned"].gt(0)]
        if len(kinds):
            worst = kinds.iloc[0]
            found.append(f"{worst['category']} ({round(worst['aligned'] * worst['n'])} of {worst['n']} {what})")
    return "; ".join(found)


def _interval(share: float, n: float) -> tuple[float, float]:
    return (share, share) if math.isnan(share) else wilson_interval(round(share * n), round(n))[:2]
