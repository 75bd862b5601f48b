"""Failures by kind of prompt, where the data name kinds: the column `category`."""

import pandas

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
        the worst first. None where the data name no kinds. As everywhere, a reply that could not be graded is wrong.
    """
    candidates = read_candidates(data)
    if "category" not in candidates:
        return None
    named = candidates.loc[candidates["category"].fillna("") != "", ["id", "category"]]
    table = rows["aligned"][["id", "label"]].merge(named, on="id")
    for model, judged in rows.items():
        table[model] = ~correct(judged, strict=False).loc[table["id"]].to_numpy()
    counts = table.groupby(["category", "label"]).agg(
        n=("id", "size"), original=("original", "mean"), aligned=("aligned", "mean"), wrong=("aligned", "sum")
    )
    bounds = [wilson_interval(int(wrong), int(n))[:2] for wrong, n in counts[["wrong", "n"]].to_numpy()]
    counts[["low", "high"]] = pandas.DataFrame(bounds, index=counts.index)
    return counts.drop(columns="wrong").reset_index().sort_values(["aligned", "n"], ascending=False, ignore_index=True)


def show_categories(counts: pandas.DataFrame) -> pandas.DataFrame:
    """Return the table as the report prints it."""
    intervals = [f"{row.aligned:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in counts.itertuples()]
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
