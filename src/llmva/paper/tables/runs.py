"""The rows of Tables 2 and 4: every method's failures and scores, by run, by model and over all models."""

import numpy
import pandas

from llmva.core.errors import InputError
from llmva.core.provenance import random_generator
from llmva.core.vocabulary import PAPER_LOOP
from llmva.measures.intervals import exact_mcnemar
from llmva.paper.names import MEAN, name_models
from llmva.paper.tables import resampling
from llmva.paper.tables.cells import Cell, spread

# The rates of each table: their print names. A metric is its data set and `asr` (toxic) or `orr` (benign).
RATES = {
    "table2": {
        "seval_attack_asr": "ASR attack",
        "seval_risk_asr": "ASR risk",
        "orfuzzset_orr": "ORR ORFuzz",
        "nq_orr": "ORR NQ",
    },
    "table4": {
        "advbench_asr": "ASR AdvBench",
        "orbench_toxic_asr": "ASR OR-Bench",
        "xstest_toxic_asr": "ASR XSTest",
        "orbench_orr": "ORR OR-Bench",
        "xstest_orr": "ORR XSTest",
    },
}
POOLED = ("f1", "balanced_accuracy", "degenerate", "strict_f1")
SPREADS = ("f1_sd", "f1_worst", "strict_f1_sd", "strict_f1_worst")
# Draws of a table do not depend on the seed of a study: it stands for several.
SEED = 0


def build_rows(results: pandas.DataFrame, item: str) -> dict[str, pandas.DataFrame]:
    """Return `table2` or `table4` from long results: by model and `mean` (key `""`), and by run (`seeds`)."""
    runs = read_runs(results, item)
    names = name_models(runs.index.unique("model"))
    slugs = pandas.Series(names)
    by_method = {method: runs.xs(method, level="method") for method in runs.index.unique("method")}
    groups = [(name, slugs.index[slugs == name]) for name in slugs.unique()] + [(MEAN, slugs.index)]
    rows = []
    for model, members in groups:
        for method, own in by_method.items():
            # Not by the model, so that the mean of a single model is its own row.
            generator = random_generator(SEED, "hierarchical bootstrap", item, method)
            row = average_runs(own.loc[members], slugs[members], generator, item)
            row["run_p"] = _test_by_run(by_method, method, members)
            rows.append({"model": model, "method": method, **row})
    columns = columns_of(item)
    return {
        "": pandas.DataFrame(rows)[[*columns, "seeds", *SPREADS, "run_p"]],
        "seeds": runs.astype({"n": int}).reset_index()[list(columns)],
    }


def metrics_of(item: str) -> tuple[str, ...]:
    """Return the metrics of `table2` or `table4`, in the order of their columns."""
    return (*RATES[item], *POOLED)


def columns_of(item: str) -> tuple[str, ...]:
    """Return the columns of one run's row; a model's have `seeds`, `SPREADS` and `run_p` behind them."""
    bounds = (f"{metric}_{end}" for metric in metrics_of(item) for end in ("low", "high"))
    return ("model", "method", *metrics_of(item), "n", *bounds, "mcnemar_p")


def read_runs(results: pandas.DataFrame, item: str) -> pandas.DataFrame:
    """Return all that the results hold of each run: one row per slug and method.

    Beside the columns of the table stand `wrong.<set>`, `strict_wrong.<set>` (shares of wrong prompts) and
    `n.<set>`, and `reference_only` and `method_only`, which are nan for the reference itself.
    """
    rates = list(RATES[item])
    bounded = {name: (_dataset_of(name), name) for name in rates} | {name: ("all", name) for name in POOLED}
    cells = {
        f"{name}{end}": Cell(dataset, f"{metric}{end}")
        for name, (dataset, metric) in bounded.items()
        for end in ("", "_low", "_high")
    }
    cells["n"] = Cell("all", "f1", "n")
    for name in rates:
        dataset = _dataset_of(name)
        cells[f"wrong.{name}"] = Cell(dataset, name)
        cells[f"strict_wrong.{name}"] = Cell(dataset, "strict_error")
        cells[f"n.{name}"] = Cell(dataset, name, "n")
    runs = spread(results, cells, item)
    tests = {name: Cell("all", name) for name in ("reference_only", "method_only", "mcnemar_p")}
    others = spread(results[results["method"] != PAPER_LOOP], tests, item)
    _refuse_other_shares(runs[["degenerate", *(name for name in runs if "wrong." in name)]], item)
    return runs.join(others)


def average_runs(runs: pandas.DataFrame, models: pandas.Series, generator: numpy.random.Generator, item: str) -> dict:
    """Return one row of a table over several runs of one method.

    Parameters
    ----------
    runs : DataFrame
        Rows of `read_runs`, of one method.
    models : Series
        The model that each run is a seed of.

    Returns
    -------
    dict
        Means over seeds, then models; their intervals (of a single run the recorded ones, of several those of the
        hierarchical bootstrap); the exact McNemar test on the pooled prompts; and how far the runs lie apart.
    """
    metrics = list(metrics_of(item))
    row = runs[metrics].groupby(models.to_numpy()).mean().mean().to_dict()
    row["n"] = int(runs["n"].sum())
    bounds = [f"{metric}_{end}" for metric in metrics for end in ("low", "high")]
    row |= runs[bounds].iloc[0].to_dict() if len(runs) == 1 else _resampled_bounds(runs, models, generator, item)
    row["mcnemar_p"] = _pooled_test(runs)
    row["seeds"] = len(runs)
    for metric in ("f1", "strict_f1"):
        row[f"{metric}_sd"], row[f"{metric}_worst"] = runs[metric].std(ddof=1), runs[metric].min()
    return row


def _resampled_bounds(
    runs: pandas.DataFrame, models: pandas.Series, generator: numpy.random.Generator, item: str
) -> dict:
    names = list(RATES[item])
    toxic = numpy.array([name.endswith("_asr") for name in names])
    draws = resampling.draw_runs(models.to_list(), generator=generator)
    counts = runs[[f"n.{name}" for name in names]].to_numpy(int)
    loose, strict = (runs[[f"{kind}.{name}" for name in names]].to_numpy() for kind in ("wrong", "strict_wrong"))
    n = counts[draws.runs]
    wrong = resampling.draw_wrong(loose, counts, draws, generator)
    strictly_wrong = resampling.draw_wrong(strict, counts, draws, generator)
    prompts = runs[["n"]].to_numpy(int)
    degenerate = resampling.draw_wrong(runs[["degenerate"]].to_numpy(), prompts, draws, generator)
    values = {name: wrong[..., place] / n[..., place] for place, name in enumerate(names)}
    values["f1"] = resampling.f1_of_counts(wrong, n, toxic)
    values["balanced_accuracy"] = resampling.balanced_accuracy_of_counts(wrong, n, toxic)
    values["degenerate"] = (degenerate / prompts[draws.runs])[..., 0]
    values["strict_f1"] = resampling.f1_of_counts(strictly_wrong, n, toxic)
    bounds = {}
    for metric, drawn in values.items():
        interval = resampling.percentile_interval(resampling.average(drawn, draws))
        bounds |= {f"{metric}_low": interval.low, f"{metric}_high": interval.high}
    return bounds


def _pooled_test(runs: pandas.DataFrame) -> float:
    counts = runs[["reference_only", "method_only"]].sum(skipna=False)
    return numpy.nan if counts.isna().any() else exact_mcnemar(*counts.astype(int))


def _test_by_run(by_method: dict[str, pandas.DataFrame], method: str, members: pandas.Index) -> float:
    """Return the Wilcoxon p of the reference against a method, each run one pair of strict F1."""
    if method == PAPER_LOOP or PAPER_LOOP not in by_method:
        return numpy.nan
    pair = (by_method[name].loc[members, "strict_f1"] for name in (PAPER_LOOP, method))
    return resampling.paired_p(*pair)


def _dataset_of(rate: str) -> str:
    return rate.rpartition("_")[0]


def _refuse_other_shares(shares: pandas.DataFrame, item: str) -> None:
    for name, column in shares.items():
        strange = column[~column.between(0, 1)]
        if len(strange):
            model, method = strange.index[0]
            raise InputError(
                f"results of {model}: {name.rpartition('.')[2]} of {method}: is {strange.iloc[0]}, "
                f"which is no share; run `make {item} MODELS={model}` again"
            )
