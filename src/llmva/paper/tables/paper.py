"""The paper's own numbers, packaged: they stand apart from our numbers, never among them."""

from pathlib import Path

import pandas

from llmva.paper.names import order_methods

FOLDER = Path(__file__).with_name("paper_values")
MODELS = 12


def read_paper_values(item: str) -> pandas.DataFrame:
    """Return the paper's `table1` to `table4`, `utility` or `headlines`, rates as fractions, sets named as here.

    `runtime_claims` has the second paper's.
    """
    return pandas.read_csv(FOLDER / f"{item}.csv")


def average_paper_values(item: str) -> pandas.DataFrame:
    """Return the means of `table2` or `table4` over the paper's models: one row per method, in printed order."""
    means = read_paper_values(item).drop(columns="model").groupby("method").mean()
    return means.loc[order_methods(means.index)].reset_index()


def share_of_sublayers() -> pandas.DataFrame:
    """Return the paper's Table 3, printed and in its code, with the share of all sublayers.

    Sublayers are two a transformer block of the models' published configurations.
    """
    table = read_paper_values("table3")
    for source in ("printed", "code"):
        table[f"share_{source}"] = table[f"l_select_{source}"] / table["sublayers"]
    return table


def read_headlines() -> pandas.Series:
    """Return the paper's headline figures, quoted in its text or recomputed from its tables, by item."""
    return read_paper_values("headlines").set_index("item")["value"]
