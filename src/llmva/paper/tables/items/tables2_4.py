"""Tables 2 and 4 in print: the means over models, the models, and the paper's real models apart from them."""

from dataclasses import dataclass

import pandas

from llmva.core.vocabulary import CONSTANTS, PAPER_LOOP
from llmva.paper.names import MEAN, printed_rows
from llmva.paper.tables.formats import (
    METHOD,
    MODEL,
    Column,
    as_count,
    as_decimal,
    as_p_value,
    as_percent,
    as_score,
    as_spread,
)
from llmva.paper.tables.layout import Block, Frames, Table
from llmva.paper.tables.paper import MODELS, average_paper_values
from llmva.paper.tables.runs import RATES, build_rows

RUNS = {"seeds": Column("Runs", as_count)}
SETS = {
    "table2": (
        "Jailbreak (ASR, of S-Eval attack and risk) and over-refusal (ORR, of ORFuzzSet and NQ) on the test split"
    ),
    "table4": (
        "Jailbreak (ASR, of AdvBench, OR-Bench toxic and unsafe XSTest) and over-refusal (ORR, of OR-Bench and "
        "safe XSTest) on data sets that no method was fitted or tuned on"
    ),
}
SCORES = "balanced accuracy and degenerate responses, all in %, and F1 over these sets"
TEST = f"p: exact McNemar test of {PAPER_LOOP} against the method, strictly judged"


@dataclass(frozen=True)
class MainTable(Table):
    """The display item `table2` or `table4`."""

    item: str

    @property
    def title(self) -> str:
        """`Table 2` or `Table 4`."""
        return self.item.replace("table", "Table ")

    @property
    def sources(self) -> tuple[str]:
        """The item's own results."""
        return (self.item,)

    def build(self, results: Frames) -> Frames:
        """Return the rows by model and over all (key `""`), and those of every run (`seeds`)."""
        return build_rows(results[self.item], self.item)

    def show(self, frames: Frames) -> list[Block | str]:
        """Return the means, where there are several models, each model, notes, and the paper's means."""
        frame = printed_rows(frames[""])
        mean, models = (frame[rows].reset_index(drop=True) for rows in (frame["model"] == MEAN, frame["model"] != MEAN))
        count = models["model"].nunique()
        # One model is its own mean.
        means = [self._mean_block(mean, count)] if count > 1 else []
        return [*means, self._models_block(models), *_notes(frame), self._paper_block()]

    def _mean_block(self, frame: pandas.DataFrame, count: int) -> Block:
        caption = (
            f"Means over {count} models. {SETS[self.item]}, {SCORES}. In brackets 95 % intervals: "
            "hierarchical bootstrap over models, seeds and prompts. SD and worst: over the runs. "
            f"{TEST}, all runs' prompts pooled; p by run: exact Wilcoxon test of strict F1, paired by run."
        )
        by_run = {"run_p": Column("p by run", as_p_value)}
        columns = {"method": METHOD, **self._number_columns(several=True), **by_run, **RUNS}
        return Block(frame, columns, caption, name="mean")

    def _models_block(self, frame: pandas.DataFrame) -> Block:
        several = bool((frame["seeds"] > 1).any())
        intervals = "BCa bootstrap within data sets"
        if several:
            intervals = f"hierarchical bootstrap over seeds and prompts (of a single run: {intervals})"
        pooled = ", all seeds' prompts pooled" if several else ""
        caption = (
            f"Model by model. {SETS[self.item]}, {SCORES}. In brackets 95 % intervals: {intervals}. {TEST}{pooled}."
        )
        columns = {"model": MODEL, "method": METHOD, **self._number_columns(several), **(RUNS if several else {})}
        return Block(frame, columns, caption, long=True)

    def _paper_block(self) -> Block:
        caption = f"Means over {MODELS} models, of the methods and numbers that the paper has."
        columns = {"method": METHOD, **self._rate_columns(), "f1": Column("F1", as_decimal, "high")}
        return Block(average_paper_values(self.item), columns, caption, name="paper")

    def _number_columns(self, several: bool) -> dict[str, Column]:
        columns = {
            **self._rate_columns(),
            "f1": Column("F1", as_score, "high"),
            "f1_spread": Column("F1: SD / worst", as_spread),
            "balanced_accuracy": Column("Balanced", as_percent, "high"),
            "degenerate": Column("Degenerate", as_percent, "low"),
            "strict_f1": Column("Strict F1", as_score, "high"),
            "strict_f1_spread": Column("Strict F1: SD / worst", as_spread),
            "n": Column("n", as_count),
            "mcnemar_p": Column("p", as_p_value),
        }
        return {name: column for name, column in columns.items() if several or column.form is not as_spread}

    def _rate_columns(self) -> dict[str, Column]:
        return {rate: Column(name, as_percent, "low") for rate, name in RATES[self.item].items()}


def _notes(frame: pandas.DataFrame) -> list[str]:
    counts = sorted((frame["n"] / frame["seeds"]).round().astype(int).unique())
    prompts = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    notes = [
        f"{prompts} prompts a run. The intervals of the rates (Wilson for a single run) and the further variants of "
        "methods are in the CSV. Strict F1 counts degenerate responses as wrong. Bold: best of the model, apart from "
        f"{' and '.join(CONSTANTS)}, which read no prompt."
    ]
    if (frame["seeds"] > 1).any():
        notes.append(
            "A p over several runs pools their prompts as if all were different ones. Where runs share prompts, or "
            "seeds of a model behave alike, it is too small; the p by run takes each run as one pair. A bootstrap over "
            "few models or seeds is too narrow."
        )
    if (frame[["f1_low", "strict_f1_low"]].to_numpy() == frame[["f1_high", "strict_f1_high"]].to_numpy()).any():
        notes.append("An interval of width zero comes from constant data and is no certainty.")
    return notes
