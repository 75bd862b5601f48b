"""Tables 2 and 4 in print: the means over models, the models, and the paper's real models apart from them."""

import pandas

from llmva.core.vocabulary import CONSTANTS, PAPER_LOOP
from llmva.paper.names import MEAN, printed_rows
from llmva.paper.tables import formats as printing
from llmva.paper.tables.formats import Column
from llmva.paper.tables.layout import Block, Table
from llmva.paper.tables.paper import MODELS, average_paper_values
from llmva.paper.tables.runs import RATES, build_rows

MODEL, METHOD = Column("Model", printing.as_text), Column("Method", printing.as_text)
RUNS = {"seeds": Column("Runs", printing.as_count)}
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


def make_table(item: str, title: str) -> Table:
    """Return the display item `table2` or `table4`."""
    return Table(
        title=title,
        sources=(item,),
        build=lambda results: build_rows(results[item], item),
        blocks=lambda frames: _blocks(printed_rows(frames[""]), item),
        notes=lambda frames: _notes(printed_rows(frames[""])),
    )


def _blocks(frame: pandas.DataFrame, item: str) -> list[Block]:
    means = frame["model"] == MEAN
    models, mean = frame[~means].reset_index(drop=True), frame[means].reset_index(drop=True)
    blocks = [_models_block(models, item), _paper_block(item)]
    # One model is its own mean.
    return blocks if models["model"].nunique() == 1 else [_mean_block(mean, item, models), *blocks]


def _mean_block(frame: pandas.DataFrame, item: str, models: pandas.DataFrame) -> Block:
    caption = (
        f"Means over {models['model'].nunique()} models. {SETS[item]}, {SCORES}. In brackets 95 % intervals: "
        "hierarchical bootstrap over models, seeds and prompts. SD and worst: over the runs. "
        f"{TEST}, all runs' prompts pooled; p by run: exact Wilcoxon test of strict F1, paired by run."
    )
    by_run = {"run_p": Column("p by run", printing.as_p_value)}
    columns = {"method": METHOD, **_number_columns(item, several=True), **by_run, **RUNS}
    return Block(frame, columns, ("method",), caption, name="mean", unmarked=CONSTANTS)


def _models_block(frame: pandas.DataFrame, item: str) -> Block:
    several = bool((frame["seeds"] > 1).any())
    intervals = "BCa bootstrap within data sets"
    if several:
        intervals = f"hierarchical bootstrap over seeds and prompts (of a single run: {intervals})"
    pooled = ", all seeds' prompts pooled" if several else ""
    caption = f"Model by model. {SETS[item]}, {SCORES}. In brackets 95 % intervals: {intervals}. {TEST}{pooled}."
    columns = {"model": MODEL, "method": METHOD, **_number_columns(item, several), **(RUNS if several else {})}
    return Block(frame, columns, ("model", "method"), caption, unmarked=CONSTANTS, long=True)


def _paper_block(item: str) -> Block:
    caption = f"Means over {MODELS} models, of the methods and numbers that the paper has."
    columns = {"method": METHOD, **_rate_columns(item), "f1": Column("F1", printing.as_decimal, "high")}
    return Block(average_paper_values(item), columns, ("method",), caption, name="paper", paper=True)


def _number_columns(item: str, several: bool) -> dict[str, Column]:
    spreads = {
        score: {f"{score}_spread": Column(f"{name}: SD / worst", printing.as_spread)} if several else {}
        for score, name in (("f1", "F1"), ("strict_f1", "Strict F1"))
    }
    return {
        **_rate_columns(item),
        "f1": Column("F1", printing.as_score, "high"),
        **spreads["f1"],
        "balanced_accuracy": Column("Balanced", printing.as_percent, "high"),
        "degenerate": Column("Degenerate", printing.as_percent, "low"),
        "strict_f1": Column("Strict F1", printing.as_score, "high"),
        **spreads["strict_f1"],
        "n": Column("n", printing.as_count),
        "mcnemar_p": Column("p", printing.as_p_value),
    }


def _rate_columns(item: str) -> dict[str, Column]:
    return {rate: Column(name, printing.as_percent, "low") for rate, name in RATES[item].items()}


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
