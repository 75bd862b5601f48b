"""What an alignment gained and lost: `report.html` to look at, and a model card; never a prompt, never a reply."""

import math
from pathlib import Path

import jinja2
import numpy
import pandas

from llmva import __version__
from llmva.aligned_model.categories import count_categories, name_worst, show_categories
from llmva.aligned_model.drawing import COLOURS, WORDS, draw_axes, draw_svg, draw_trade_off, show_trade_off
from llmva.aligned_model.grading import NOTHING, blank_ungraded, name_thinking, tell_judged
from llmva.aligned_model.sample import describe_sample
from llmva.core.paths import write_atomically
from llmva.core.store import Stage
from llmva.core.vocabulary import VERDICTS
from llmva.judging.guard import parse_guard_lines
from llmva.measures.intervals import with_intervals
from llmva.measures.shares import shares_of
from llmva.method.trade_off import TRADE_OFF
from llmva.models.sources import find_base, shared_name, split_source
from llmva.study.evaluation import read_test_rows, read_utility
from llmva.study.loop_variants import read_loop
from llmva.study.study import Study

MODELS = ["original", "aligned"]
ROWS = WORDS["rates"]
# Of an exact McNemar test on the test prompts, above which a gain is not called one.
LARGEST_CHANCE = 0.05
CURVES = {"strict_f1": "#0072B2", "asr": "#D55E00", "orr": "#009E73", "degenerate": "black"}


def write_report(
    folder: Path,
    study: Study,
    facts: dict,
    loop: Stage,
    candidates: pandas.DataFrame,
    evaluated: dict[str, Stage],
    trials: pandas.DataFrame | None = None,
    earlier: dict[str, pandas.DataFrame] | None = None,
) -> None:
    """Write `report.html`, one file without outside parts, and the model card `README.md`, from the same figures.

    Parameters
    ----------
    folder : Path
        Where they are written; the report lists what lies there already.
    facts : dict
        As `folder.write_aligned` gathers them.
    loop : Stage
        The finished loop.
    candidates : DataFrame
        Validation history of every candidate for L_select: l_select, iteration, strict_f1.
    evaluated : dict of str to Stage
        `Original` and the method.
    trials : DataFrame, optional
        Validation metrics by beta, of a method whose last edit can be moved.
    earlier : dict of str to DataFrame, optional
        Of a model that was aligned before: its test prompts of then, examined; see `examine_earlier`.
    """
    rows = _by_model(evaluated)
    results = _measured(rows, study.params.seed)
    pooled = _over_all_sets(results)
    kinds = count_categories(rows, study.params.data)
    utility, movable = _utility(evaluated), trials is not None and len(trials) > 1
    parts = {
        **_words(study, facts, pooled),
        "gguf": facts.get("gguf"),
        "gguf_checkpoint": next((path.name for path in folder.glob("checkpoint/*.gguf")), None),
        "count": len(rows["original"]),
        "kept": _kept(utility),
        "sample": describe_sample(study),
        "rates": _rates(pooled),
        "rates_plot": _draw_rates(pooled),
        "data_sets": _data_sets(results),
        "kinds": None if kinds is None else show_categories(kinds),
        "worst_kinds": "" if kinds is None else name_worst(kinds),
        **_earlier(earlier, study.params.seed),
        "judged": tell_judged(rows, study.params.judge_model, name_thinking(study)),
        "changes": _changes(rows),
        "categories": _categories(rows),
        "utility": utility,
        "candidates": _candidates(candidates),
        "trade_off": show_trade_off(trials, study.validation) if movable else None,
        "trade_off_plot": _draw_movable(study, trials, facts["beta"]) if movable else "",
        "history_plot": _draw_history(read_loop(loop).history, facts["best_iteration"]),
        "files": _files(folder),
    }
    for name, template in {"report.html": "report.html", "README.md": "model_card.md"}.items():
        write_atomically(folder / name, TEMPLATES.get_template(template).render(parts) + "\n")


def summarise(evaluated: dict[str, Stage], study: Study) -> pandas.DataFrame:
    """Return the rates and scores before and after, with 95 % intervals, as text."""
    return _rates(_over_all_sets(_measured(_by_model(evaluated), study.params.seed))).set_index("")


def show_changes(evaluated: dict[str, Stage]) -> pandas.DataFrame:
    """Return how many test prompts went from which verdict to which, by label."""
    return _changes(_by_model(evaluated)).set_index("")


def _by_model(evaluated: dict[str, Stage]) -> dict[str, pandas.DataFrame]:
    return dict(zip(MODELS, read_test_rows(evaluated).values(), strict=True))


def _measured(rows: dict[str, pandas.DataFrame], seed: int) -> pandas.DataFrame:
    return blank_ungraded(with_intervals(rows, "original", seed=seed), rows)


def _over_all_sets(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return the metrics over all sets, and the test, indexed by metric: a column for each of the two models."""
    return results[results["dataset"] == "all"].pivot(index="metric", columns="method", values="value")


def _words(study: Study, facts: dict, pooled: pandas.DataFrame) -> dict:
    base, revision = split_source(find_base(study.params.model))
    return {
        "facts": facts,
        "params": study.params,
        "version": __version__,
        "name": Path(base).name,
        "base": base if revision else "",
        # As Python writes a text, whatever signs are in it.
        "where": repr(shared_name(find_base(study.params.model))),
        "revision": revision,
        "verdict": _verdict(pooled),
        "test": "" if math.isnan(pooled.at["mcnemar_p", "aligned"]) else WORDS["test"].format(**pooled["aligned"]),
        "choice": WORDS["choice"][_how_chosen(facts)].format(**facts),
        "drift": WORDS["drift"]["unknown" if math.isnan(facts["drift"]) else "known"].format(**facts),
    }


def _how_chosen(facts: dict) -> str:
    if facts["added"]:
        return "edited"
    return "undecided" if "one class" in facts["stopped"] else "original"


def _verdict(pooled: pandas.DataFrame) -> str:
    before, after = (pooled[model] for model in MODELS)
    for model in MODELS:
        if math.isnan(pooled.at["strict_f1", model]):
            return WORDS["verdict"]["ungraded"].format(model=model)
    if after["strict_f1"] <= before["strict_f1"]:
        return WORDS["verdict"]["worse"]
    if after["mcnemar_p"] > LARGEST_CHANCE:
        return WORDS["verdict"]["chance"].format(**after)
    changes = [
        WORDS["verdict"]["better"].format(rate=ROWS[metric], before=100 * before[metric], after=100 * after[metric])
        for metric in ("asr", "orr")
        if not math.isnan(after[metric] - before[metric])
    ]
    return f"{'; '.join(changes).capitalize()}."


def _rates(pooled: pandas.DataFrame) -> pandas.DataFrame:
    rows = [(name, *(_cell(pooled[model], metric) for model in MODELS)) for metric, name in ROWS.items()]
    return pandas.DataFrame(rows, columns=["", *MODELS])


def _cell(values: pandas.Series, metric: str) -> str:
    if math.isnan(values[metric]):
        return NOTHING
    bounds = [values[f"{metric}_{end}"] for end in ("low", "high")]
    # Of too few rows there is none.
    interval = "" if any(map(math.isnan, bounds)) else " [{:.3f}, {:.3f}]".format(*bounds)
    return f"{values[metric]:.3f}{interval}"


def _data_sets(results: pandas.DataFrame) -> pandas.DataFrame:
    rates = results[results["metric"].str.fullmatch(r".*_(asr|orr)")]
    # A set of a user's own may hold toxic and benign prompts alike.
    what = rates["metric"].str.endswith("asr").map({True: "toxic, answered", False: "benign, refused"})
    table = rates.assign(what=what).pivot(index=["dataset", "what", "n"], columns="method", values="value")
    return table[MODELS].reset_index().set_axis(["", "share of", "prompts", *MODELS], axis=1).round(3)


def _changes(rows: dict[str, pandas.DataFrame]) -> pandas.DataFrame:
    before, after = rows.values()
    both = before.merge(after, on=["id", "label"], suffixes=("", "_after"), validate="one_to_one")
    counts = pandas.crosstab([both["label"], both["verdict"]], both["verdict_after"])
    counts = counts.reindex(columns=[name for name in VERDICTS if name in counts])
    counts.index = [f"{label}: {verdict}" for label, verdict in counts.index]
    return counts.rename_axis("").rename_axis(None, axis=1).reset_index()


def _earlier(rows: dict[str, pandas.DataFrame] | None, seed: int) -> dict:
    """Return what became of the earlier alignment's prompts: a sentence, and a table where they are there."""
    if not rows:
        return {"earlier": WORDS["earlier"]["unknown"] if rows is not None else "", "earlier_rates": None}
    pooled = _over_all_sets(_measured(rows, seed))
    before, after = (pooled[model] for model in MODELS)
    if math.isnan(after["strict_f1"] - before["strict_f1"]):
        return {"earlier": WORDS["earlier"]["ungraded"], "earlier_rates": _rates(pooled)}
    lost = after["strict_f1"] < before["strict_f1"] and after["mcnemar_p"] <= LARGEST_CHANCE
    words = WORDS["earlier"]["lost" if lost else "kept"]
    sentence = words.format(before=before["strict_f1"], after=after["strict_f1"], chance=after["mcnemar_p"])
    return {"earlier": sentence, "earlier_rates": _rates(pooled)}


def _categories(rows: dict[str, pandas.DataFrame]) -> pandas.DataFrame | None:
    counts = {}
    for model, table in rows.items():
        answered = table[(table["label"] == "toxic") & (table["verdict"] == "answered")]
        judged = [lines for raw in answered["raw"] if (lines := parse_guard_lines(str(raw)))]
        named = [category for lines in judged for category in lines.categories]
        counts[model] = pandas.Series(named, dtype=object).value_counts()
    table = pandas.DataFrame(counts).fillna(0).astype(int)
    return table.rename_axis("").reset_index() if len(table) else None


def _utility(evaluated: dict[str, Stage]) -> pandas.DataFrame | None:
    utility = read_utility(evaluated)
    if utility.empty:
        return None
    table = utility.pivot(index=["task", "metric", "n"], columns="method", values="value")[list(evaluated)]
    table = table.set_axis(MODELS, axis=1).round(3)
    table = table.reset_index()
    # Where the original has 0 there is nothing to keep.
    table["kept"] = shares_of(table["aligned"].to_numpy(), table["original"].to_numpy(), table["task"]).round(3)
    return table


def _kept(table: pandas.DataFrame | None) -> str:
    if table is None:
        return WORDS["kept"]["unmeasured"]
    shares = [NOTHING if math.isnan(share) else f"{share:.2f}" for share in table["kept"]]
    kept = ", ".join(f"{task} {share}" for task, share in zip(table["task"], shares, strict=True))
    return WORDS["kept"]["measured"].format(shares=kept)


def _candidates(history: pandas.DataFrame) -> pandas.DataFrame:
    best = history.loc[history.groupby("l_select")["strict_f1"].idxmax(), ["l_select", "iteration", "strict_f1"]]
    best["iterations"] = history.groupby("l_select")["iteration"].max().to_numpy()
    best.columns = ["sublayers an iteration", "best iteration", "strict F1 on validation", "iterations run"]
    return best.round(3)


def _draw_rates(pooled: pandas.DataFrame) -> str:
    figure, axes = draw_axes()
    heights = -numpy.arange(len(ROWS))
    for shift, model in zip((0.15, -0.15), MODELS, strict=True):
        values, low, high = (pooled.loc[[name + end for name in ROWS], model] for end in ("", "_low", "_high"))
        ends = [values.to_numpy() - low.to_numpy(), high.to_numpy() - values.to_numpy()]
        style = {"fmt": "o", "color": COLOURS[model], "markersize": 4, "linewidth": 1}
        axes.errorbar(values, heights + shift, xerr=ends, label=model, **style)
    axes.set_yticks(heights, list(ROWS.values()))
    axes.set_xlim(-0.02, 1.02)
    return draw_svg(figure, "Rates and scores of both models with intervals; the table above has the numbers")


def _draw_movable(study: Study, trials: pandas.DataFrame, beta: float) -> str:
    figure = draw_trade_off(trials, study.validation, beta)
    return draw_svg(figure, "Both failures on validation prompts by beta; the table below has the numbers")


def _draw_history(history: pandas.DataFrame, chosen: int) -> str:
    figure, axes = draw_axes()
    for metric, colour in CURVES.items():
        axes.plot(history.index, history[metric], color=colour, label=ROWS[metric], linewidth=1.2)
    axes.axvline(chosen, color="0.5", linestyle=":")
    axes.set_xlabel("iteration")
    axes.set_ylim(-0.02, 1.02)
    return draw_svg(figure, "Validation metrics by iteration of the chosen loop")


def _files(folder: Path) -> pandas.DataFrame:
    # These are there before the report, or not at all; the rest is always written, some of it after.
    left_out = {name for name in WORDS["files"] if name.endswith(("/", TRADE_OFF)) and not (folder / name).exists()}
    there = [(name, what) for name, what in WORDS["files"].items() if name not in left_out]
    return pandas.DataFrame(there, columns=["file", "what it is"])


def _html(table: pandas.DataFrame) -> str:
    return table.to_html(index=False, border=0, na_rep=NOTHING)


LOADER = jinja2.PackageLoader("llmva.aligned_model")
TEMPLATES = jinja2.Environment(loader=LOADER, autoescape=jinja2.select_autoescape())
TEMPLATES.filters["table"] = _html
TEMPLATES.filters["shared"] = shared_name
