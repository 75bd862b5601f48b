"""What the paper reports of its twelve real models: facts to stand apart from our numbers, never among them."""

from pathlib import Path

import pandas

from llmva.paper.names import order_methods

FOLDER = Path(__file__).with_name("paper_values")
MODELS = 12
# Transformer blocks of the paper's models, from their published configurations.
BLOCKS = {
    "Llama-3.1-8B": 32,
    "gemma-2-9b": 42,
    "Mistral-v0.3-7B": 32,
    "Phi-3.5-4B": 32,
    "Phi-4-4B": 32,
    "Phi-4-15B": 40,
    "Qwen2.5-3B": 36,
    "Qwen2.5-7B": 28,
    "Qwen2.5-14B": 48,
    "Qwen3-4B": 36,
    "Qwen3-8B": 36,
    "Qwen3-14B": 40,
}


def read_paper_values(item: str) -> pandas.DataFrame:
    """Return the paper's `table1` to `table4` or `headlines`, rates as fractions, sets named as here."""
    return pandas.read_csv(FOLDER / f"{item}.csv").rename(columns=lambda name: name.replace("or_bench", "orbench"))


def average_paper_values(item: str) -> pandas.DataFrame:
    """Return the means of `table2` or `table4` over the paper's models: one row per method, in printed order."""
    means = read_paper_values(item).drop(columns="model").groupby("method").mean()
    return means.loc[order_methods(means.index)].reset_index()


def share_of_sublayers() -> pandas.DataFrame:
    """Return the paper's Table 3, printed and in its code, with the share of all sublayers (two a block)."""
    table = read_paper_values("table3")
    table["sublayers"] = 2 * table["model"].map(BLOCKS)
    for source in ("printed", "code"):
        table[f"share_{source}"] = table[f"l_select_{source}"] / table["sublayers"]
    return table


def headline(item: str) -> float:
    """Return one figure that the paper quotes in its text."""
    return float(read_paper_values("headlines").set_index("item").at[item, "value"])
