"""The rows of Tables 2 and 4: every method's failures and scores, by run, by model and over all models."""

import numpy
import pandas

from llmva.core.errors import InputError
from llmva.core.results import remake, world_of
from llmva.core.vocabulary import (
    ATTACK_SETS,
    ERROR_RATE,
    PAPER_LOOP,
    PRETRAINED_SETS,
    PRETRAINED_UNSEEN_SETS,
    SAFETY_SETS,
    TRANSFER_SETS,
)
from llmva.measures.intervals import exact_mcnemar
from llmva.paper.names import MEAN, name_models
from llmva.paper.tables import resampling
from llmva.paper.tables.cells import spread
from llmva.paper.tables.layout import Frames

# The rates of each table: a data set and `asr` (toxic) or `orr` (benign).
RATES, PRETRAINED_RATES = (
    {item: [f"{name}_{ERROR_RATE[label]}" for name, label in sets.items()] for item, sets in tables.items()}
    for tables in (
        {"table2": SAFETY_SETS, "table4": TRANSFER_SETS, "attacks": ATTACK_SETS},
        {"table2": PRETRAINED_SETS, "table4": PRETRAINED_UNSEEN_SETS},
    )
)
# Of which the spread over runs is shown.
SCORES = {"f1": "F1", "strict_f1": "Strict F1"}


def build_rows(item: str, results: Frames) -> Frames:
    """Return `table2` or `table4` from long results: by model and `mean` (key `""`), and by run (`seeds`)."""
    runs = read_runs(results[item], item)
    slugs = pandas.Series(name_models(runs.index.unique("model")))
    by_method = {method: runs.xs(method, level="method") for method in runs.index.unique("method")}
    rows = []
    for model in [*slugs.unique(), MEAN]:
        members = slugs if model == MEAN else slugs[slugs == model]
        for method, every in by_method.items():
            row = {"model": model, "method": method, **_average(every.loc[members.index], members, item, method)}
            if method != PAPER_LOOP and PAPER_LOOP in by_method:
                pair = (by_method[name].loc[members.index, "strict_f1"] for name in (PAPER_LOOP, method))
                row["run_p"] = resampling.paired_p(*pair)
            rows.append(row)
    columns = columns_of(find_rates(results[item], item))
    spreads = (f"{score}_{part}" for score in SCORES for part in ("sd", "worst"))
    return {
        "": pandas.DataFrame(rows).reindex(columns=[*columns, "seeds", *spreads, "run_p"]),
        "seeds": runs.reset_index()[list(columns)],
    }


def find_rates(results: pandas.DataFrame, item: str) -> list[str]:
    """Return the rates of a table's results, in the order of their columns.

    Those of a pretrained model are on public sets, some of which could perhaps not be had.
    """
    if not all(world_of(slug) == "pretrained" for slug in results["model"].unique()):
        return RATES[item]
    there = set(results["metric"])
    return [rate for rate in PRETRAINED_RATES.get(item, RATES[item]) if rate in there]


def metrics_of(rates: list[str]) -> tuple[str, ...]:
    """Return the metrics of a table with these rates, in the order of their columns."""
    return (*rates, "f1", "balanced_accuracy", "degenerate", "strict_f1")


def columns_of(rates: list[str]) -> tuple[str, ...]:
    """Return the columns of one run's row; a model's have `seeds`, the spread and `run_p` behind them."""
    return ("model", "method", *metrics_of(rates), "n", *_bounds_of(rates), "mcnemar_p")


def rates_of(runs: pandas.DataFrame, failure: str = "") -> list[str]:
    """Return the rates that `read_runs` found, or those of one failure: `asr` or `orr`."""
    rates = [name.removeprefix("n.") for name in runs if name.startswith("n.")]
    return [rate for rate in rates if rate.endswith(failure)]


def read_runs(results: pandas.DataFrame, item: str) -> pandas.DataFrame:
    """Return all that the results hold of each run: one row per slug and method.

    Beside the columns of the table stand, for each of its rates, `strict.<rate>` (the share of wrong prompts with
    broken replies among them) and `n.<rate>`, and `reference_only` and `method_only`, which are nan for the
    reference itself.
    """
    sets = {rate: rate.rpartition("_")[0] for rate in find_rates(results, item)}
    cells = {
        f"{name}{end}": (sets.get(name, "all"), f"{name}{end}")
        for name in metrics_of(list(sets))
        for end in ("", "_low", "_high")
    }
    strict = {f"strict.{rate}": (name, "strict_error") for rate, name in sets.items()}
    counts = {"n": ("all", "f1"), **{f"n.{rate}": (name, rate) for rate, name in sets.items()}}
    runs = spread(results, cells | strict, item).join(spread(results, counts, item, field="n"))
    _refuse_other_shares(runs[["degenerate", *sets, *strict]], item)
    tests = {name: ("all", name) for name in ("reference_only", "method_only", "mcnemar_p")}
    return runs.join(spread(results[results["method"] != PAPER_LOOP], tests, item))


def rates_and_counts(runs: pandas.DataFrame, rates: list[str], kind: str = "strict.") -> tuple[numpy.ndarray, ...]:
    """Return shares of wrong prompts, strict or (an empty `kind`) loose, and numbers of prompts: (runs, rates)."""
    return runs[[f"{kind}{rate}" for rate in rates]].to_numpy(), runs[[f"n.{rate}" for rate in rates]].to_numpy(int)


def _average(runs: pandas.DataFrame, models: pandas.Series, item: str, method: str) -> dict:
    """Return means over seeds, then models, with intervals and tests, and how far the runs of a method lie apart."""
    draws, rates = resampling.draw_runs(models, item, method), rates_of(runs)
    row = draws.mean(runs[list(metrics_of(rates))]).to_dict()
    # The recorded bounds of a single run. Draws do not depend on the model: a single model's mean is its own row.
    row |= runs[_bounds_of(rates)].iloc[0].to_dict() if len(runs) == 1 else _resampled_bounds(runs, draws)
    counts = runs[["reference_only", "method_only"]].sum(skipna=False)
    pooled_p = numpy.nan if counts.isna().any() else exact_mcnemar(*counts.astype(int))
    row |= {"n": runs["n"].sum(), "seeds": len(runs), "mcnemar_p": pooled_p}
    for score in SCORES:
        row |= {f"{score}_sd": runs[score].std(ddof=1), f"{score}_worst": runs[score].min()}
    return row


def _resampled_bounds(runs: pandas.DataFrame, draws: resampling.DrawnRuns) -> dict[str, float]:
    names = rates_of(runs)
    toxic = numpy.isin(names, rates_of(runs, "asr"))
    (loose, counts), (strict, _) = (rates_and_counts(runs, names, kind) for kind in ("", "strict."))
    prompts = runs[["n"]].to_numpy()
    wrong, strictly_wrong = draws.draw_wrong(loose, counts), draws.draw_wrong(strict, counts)
    degenerate = draws.draw_wrong(runs[["degenerate"]].to_numpy(), prompts)
    n = counts[draws.runs]
    values = {
        **dict(zip(names, numpy.moveaxis(wrong / n, -1, 0), strict=True)),
        "f1": resampling.f1_of_counts(wrong, n, toxic),
        "balanced_accuracy": resampling.balanced_accuracy_of_counts(wrong, n, toxic),
        "degenerate": (degenerate / prompts[draws.runs])[..., 0],
        "strict_f1": resampling.f1_of_counts(strictly_wrong, n, toxic),
    }
    bounds = {}
    for metric, drawn in values.items():
        bounds[f"{metric}_low"], bounds[f"{metric}_high"], _ = draws.interval(drawn)
    return bounds


def _bounds_of(rates: list[str]) -> list[str]:
    return [f"{metric}_{end}" for metric in metrics_of(rates) for end in ("low", "high")]


def _refuse_other_shares(shares: pandas.DataFrame, item: str) -> None:
    strange = (~shares.apply(lambda column: column.between(0, 1))).stack()
    for model, method, name in strange.index[strange][:1]:
        raise InputError(
            f"results of {model}: {name.removeprefix('strict.')} of {method}: is {shares.at[(model, method), name]}, "
            f"which is no share; run {remake(item, model)} again"
        )
