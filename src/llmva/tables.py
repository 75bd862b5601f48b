"""Tables from `results/` alone: CSV at full precision, LaTeX and Markdown as printed.

`python -m llmva.tables table2 --models tiny-llama tiny-qwen2` builds one table and prints it;
`python -m llmva.tables all` builds every table that has results.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas

from llmva import paths, printing
from llmva.errors import InputError, command
from llmva.params import SEED_SUFFIX, known_slugs
from llmva.printing import Column
from llmva.results import is_organism, read_results, result_path

RATES = ("seval_attack_asr", "seval_risk_asr", "orfuzzset_orr", "nq_orr")
METRICS = (*RATES, "f1", "balanced_accuracy", "degenerate", "strict_f1")
INTERVALS = tuple(f"{metric}_{end}" for metric in METRICS for end in ("low", "high"))
TABLE2_COLUMNS = ("model", "method", *METRICS, "n", *INTERVALS, "mcnemar_p")
TABLE3_COLUMNS = ("model", "l_select", "sublayers", "share")
# The paper's order: the model as it came, the baselines by name, then the method and ours.
FIRST, LAST = ("Original",), ("LLM-VA", "LLM-VA-R")
# Means over the paper's twelve real models, recomputed from its Table 2: for a note, never for a column.
PAPER_MEAN_F1 = {"Original": 0.563, "LLM-VA": 0.768}
WORLDS = {
    True: "These are model organisms (tiny-…), small models trained from a seed on a generated corpus, not real ones.",
    False: "These are real models.",
}


@dataclass(frozen=True)
class Table:
    """A display item: how it is built from long results, and how it is printed and explained."""

    title: str
    build: Callable[[pandas.DataFrame], pandas.DataFrame]
    caption: str
    columns: dict[str, Column]
    index: tuple[str, ...]
    notes: Callable[[pandas.DataFrame], list[str]]


def build_table(item: str, slugs: Sequence[str]) -> pandas.DataFrame:
    """Return a table at full precision, rates as fractions: real models first, then organisms.

    Parameters
    ----------
    item : str
        `table2` or `table3`.
    slugs : sequence of str
        The models. Several seeds of one (`tiny-llama`, `tiny-llama-s1`) become one row: the mean
        of values and of bounds (wider than the mean's own interval), the sum of n, no p-value.

    Returns
    -------
    DataFrame
        With the columns `TABLE2_COLUMNS` or `TABLE3_COLUMNS`.

    Raises
    ------
    InputError
        When the item is unknown, or a model, a method or a metric is missing.
    """
    table = _table(item)
    return table.build(read_results(item, sorted(dict.fromkeys(slugs), key=is_organism)))


def save_table(frame: pandas.DataFrame, item: str) -> list[Path]:
    """Write a table as CSV, LaTeX and Markdown, and return the files.

    Organisms never share a column with real models: where both are in the frame, the files of
    the table's own name hold the real ones, and those of `<item>_organisms` the others.
    """
    organisms = frame["model"].map(is_organism)
    if not organisms.any() or organisms.all():
        return _save_world(frame, item, item)
    real = _save_world(frame[~organisms], item, item)
    return real + _save_world(frame[organisms], item, f"{item}_organisms")


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Build one table or all, and print each as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m llmva.tables", description="Build tables from results/.")
    parser.add_argument("item", help=f"{', '.join(TABLES)}, or all: every table that has results")
    parser.add_argument("--models", nargs="+", help="slugs; default: the organisms of papermill_params/")
    options = parser.parse_args(arguments)
    slugs = options.models or [slug for slug in known_slugs() if is_organism(slug)]
    for item in _items_with_results(slugs) if options.item == "all" else [options.item]:
        for path in save_table(build_table(item, slugs), item):
            print(path.read_text(encoding="utf-8") if path.suffix == ".md" else f"wrote {path}")


def _table(item: str) -> Table:
    if item not in TABLES:
        raise InputError(f"{item}: unknown table; known are {', '.join(TABLES)} (or all)")
    return TABLES[item]


def _items_with_results(slugs: Sequence[str]) -> list[str]:
    # One model's results are enough to start a table, and then each missing model is an error.
    items = [item for item in TABLES if any(result_path(slug, item).is_file() for slug in slugs)]
    if not items:
        raise InputError(f"{paths.RESULTS}: no table's results for {', '.join(slugs)}; run `make table2` first")
    return items


def _save_world(frame: pandas.DataFrame, item: str, stem: str) -> list[Path]:
    table, frame = _table(item), frame.reset_index(drop=True)
    caption = f"{table.caption} {WORLDS[is_organism(frame['model'].iloc[0])]}"
    cells, best = printing.formatted(frame, table.columns), printing.best_cells(frame, table.columns)
    index = [table.columns[name].heading for name in table.index]
    markdown = printing.to_markdown(cells, best, index=index)
    contents = {
        "csv": frame.to_csv(index=False, lineterminator="\n"),
        "tex": printing.to_latex(cells, best, index=index, caption=caption, label=f"tab:{stem}"),
        "md": "\n\n".join([f"**{table.title}.** {caption}", markdown, *table.notes(frame)]) + "\n",
    }
    files = [paths.TABLES / f"{stem}.{suffix}" for suffix in contents]
    for path, content in zip(files, contents.values(), strict=True):
        paths.write_atomically(path, content)
    return files


def _build_table2(results: pandas.DataFrame) -> pandas.DataFrame:
    rows = results[results["dataset"] == results["metric"].map(_dataset_of)]
    means = _mean_over_seeds(rows)
    wide = _wide(means, [*METRICS, *INTERVALS])
    wide["n"] = means.xs("f1", level="metric")["n"]
    # The mean of several p-values is no p-value.
    tested = means[means["seeds"] == 1]["value"].unstack("metric")
    wide["mcnemar_p"] = tested["mcnemar_p"] if "mcnemar_p" in tested else float("nan")
    return _in_order(wide, results)[list(TABLE2_COLUMNS)]


def _build_table3(results: pandas.DataFrame) -> pandas.DataFrame:
    wide = _wide(_mean_over_seeds(results), list(TABLE3_COLUMNS[1:]))
    return _in_order(wide, results)[list(TABLE3_COLUMNS)]


def _dataset_of(metric: str) -> str:
    """Return where a metric of Table 2 stands: a set's rate under that set, all else under `all`."""
    rate = metric.removesuffix("_low").removesuffix("_high")
    return rate.rpartition("_")[0] if rate in RATES else "all"


def _mean_over_seeds(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Return `value`, `n` and number of `seeds`, indexed by model, method and metric."""
    key = ["model", "method", "metric", "seed"]
    if rows.duplicated(key).any():
        model, method, metric, _ = rows.loc[rows.duplicated(key), key].iloc[0]
        raise InputError(f"results of {model}: {metric} of {method} stands twice; run its target again")
    groups = rows.assign(model=_names(rows)).groupby(["model", "method", "metric"])
    return groups.agg(value=("value", "mean"), n=("n", "sum"), seeds=("value", "size"))


def _names(rows: pandas.DataFrame) -> pandas.Series:
    """Return each row's model, by its base name where several seeds of it are there."""
    bases = {slug: SEED_SUFFIX.sub("", slug) for slug in rows["model"].unique()}
    counts = pandas.Series(bases.values()).value_counts()
    return rows["model"].map({slug: base if counts[base] > 1 else slug for slug, base in bases.items()})


def _wide(means: pandas.DataFrame, metrics: list[str]) -> pandas.DataFrame:
    """Return one row per model and method, one column per metric; none may be missing."""
    models, methods = (means.index.unique(level) for level in ("model", "method"))
    wanted = pandas.MultiIndex.from_product([models, methods, metrics])
    missing = wanted.difference(means.index, sort=False)
    if len(missing):
        model, method, metric = missing[0]
        raise InputError(f"results of {model}: no {metric} of {method}; run its target again")
    return means.loc[wanted, "value"].unstack()[metrics].rename_axis(index=["model", "method"])


def _in_order(wide: pandas.DataFrame, results: pandas.DataFrame) -> pandas.DataFrame:
    present = set(wide.index.unique("method"))
    methods = [name for name in (*FIRST, *sorted(present - {*FIRST, *LAST}), *LAST) if name in present]
    rows = pandas.MultiIndex.from_product([_names(results).unique(), methods], names=["model", "method"])
    return wide.loc[rows].reset_index()


def _table2_notes(frame: pandas.DataFrame) -> list[str]:
    counts = sorted(frame["n"].unique())
    prompts = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    means = frame.groupby("method", sort=False)[["f1", "strict_f1"]].mean()
    shown = ", ".join(f"{method} {row.f1:.3f} ({row.strict_f1:.3f})" for method, row in means.iterrows())
    notes = [
        f"{prompts} prompts a row; 95 % intervals in brackets (F1: BCa bootstrap within data sets; those of the rates, "
        "Wilson, are in the CSV); p: exact McNemar test of strict correctness against the original. Strict F1 counts "
        "degenerate responses as wrong. Bold: best of the model.",
        f"Mean F1 (strict F1) over the models here: {shown}.",
        f"The paper's real models, not these: mean F1 {PAPER_MEAN_F1['Original']:.3f} (Original) "
        f"-> {PAPER_MEAN_F1['LLM-VA']:.3f} (LLM-VA).",
    ]
    if (frame[["f1_low", "strict_f1_low"]].to_numpy() == frame[["f1_high", "strict_f1_high"]].to_numpy()).any():
        notes.append("An interval of width zero comes from constant data and is no certainty.")
    return notes


TABLES = {
    "table2": Table(
        title="Table 2",
        build=_build_table2,
        caption=(
            "Jailbreak (ASR, of S-Eval attack and risk) and over-refusal (ORR, of ORFuzzSet and NQ) on the test split, "
            "balanced accuracy and degenerate responses, all in %, and F1 over the four sets."
        ),
        columns={
            "model": Column("Model", printing.as_text),
            "method": Column("Method", printing.as_text),
            "seval_attack_asr": Column("ASR attack", printing.as_percent, "low"),
            "seval_risk_asr": Column("ASR risk", printing.as_percent, "low"),
            "orfuzzset_orr": Column("ORR ORFuzz", printing.as_percent, "low"),
            "nq_orr": Column("ORR NQ", printing.as_percent, "low"),
            "f1": Column("F1", printing.as_score, "high"),
            "balanced_accuracy": Column("Balanced", printing.as_percent, "high"),
            "degenerate": Column("Degenerate", printing.as_percent, "low"),
            "strict_f1": Column("Strict F1", printing.as_score, "high"),
            "n": Column("n", printing.as_count),
            "mcnemar_p": Column("p", printing.as_p_value),
        },
        index=("model", "method"),
        notes=_table2_notes,
    ),
    "table3": Table(
        title="Table 3",
        build=_build_table3,
        caption="Number of edited sublayers (L_select) that validation chose, and its share of all sublayers, in %.",
        columns={
            "model": Column("Model", printing.as_text),
            "l_select": Column("L_select", printing.as_count),
            "sublayers": Column("Sublayers", printing.as_count),
            "share": Column("Share", printing.as_percent),
        },
        index=("model",),
        notes=lambda frame: ["Sublayers: attention and MLP of every block. L_select is chosen on validation."],
    ),
}


if __name__ == "__main__":
    main()
