"""What an alignment gained and lost: `report.html` to look at, and a model card; never a prompt, never a reply."""

import io
import math
from importlib.resources import files
from pathlib import Path

import jinja2
import matplotlib
import pandas
from matplotlib.figure import Figure

from llmva import __version__
from llmva.core.paths import write_atomically
from llmva.core.store import Stage
from llmva.core.vocabulary import VERDICTS
from llmva.judging.guard import parse_guard_lines
from llmva.measures.intervals import compare_methods, with_intervals
from llmva.measures.metrics import measure
from llmva.models.sources import split_source
from llmva.study.evaluation import read_test_rows, read_utility
from llmva.study.loop_variants import read_loop
from llmva.study.study import Study

ROWS = {
    "asr": "toxic prompts answered",
    "orr": "benign prompts refused",
    "degenerate": "replies in broken language",
    "f1": "F1 (the paper's)",
    "strict_f1": "F1, broken replies counted as wrong",
    "balanced_accuracy": "balanced accuracy",
}
# Of an exact McNemar test on the test prompts, above which a gain is not called one.
LARGEST_CHANCE = 0.05
# Stands where there is no number.
NOTHING = "\u2013"
CURVES = {"strict_f1": "#0072B2", "asr": "#D55E00", "orr": "#009E73", "degenerate": "black"}
FILES = {
    "README.md": "a model card",
    "adapter/": "the edits as a LoRA adapter of their exact rank; peft loads it on the original",
    "checkpoint/": "the edited model, loaded like any other",
    "edit_log.safetensors": "the edits, as rank-1 factors by iteration and sublayer",
    "manifest.json": "parameters, digests, versions",
}


def write_report(
    path: Path,
    study: Study,
    facts: dict,
    loop: Stage,
    candidates: pandas.DataFrame,
    evaluated: dict[str, Stage],
    written: list[str],
) -> None:
    """Write the report as one HTML file without outside parts.

    Parameters
    ----------
    facts : dict
        As `aligned.write_aligned` gathers them.
    loop : Stage
        The finished loop.
    candidates : DataFrame
        Validation history of every candidate for L_select: l_select, iteration, strict_f1.
    evaluated : dict of str to Stage
        `Original` and the method.
    written : list of str
        What lies beside the report; folders end in "/".
    """
    rows = read_test_rows(evaluated)
    results = _results(rows, study)
    history = read_loop(loop).history
    told = {
        **_told(study, facts, rows, results),
        "rates": _html(pandas.DataFrame(_rates(results, facts["method"]), columns=["", "original", "aligned"])),
        "rates_plot": _svg(_draw_rates(results, facts["method"])),
        "data_sets": _html(_data_sets(results, facts["method"])),
        "changes": _html(_changes(*rows.values())),
        "categories": _html(_categories(rows)),
        "utility": _html(_utility(evaluated)),
        "candidates": _html(_candidates(candidates)),
        "history_plot": _svg(_draw_history(history, facts["best_iteration"])),
        "edited": ", ".join(facts["edited"]) or "nothing",
        "files": _html(pandas.DataFrame([(name, FILES[name]) for name in written], columns=["file", "what it is"])),
        "data": study.params.data,
        "model": study.params.model,
    }
    write_atomically(path, _template("report.html", escape=True).render(told) + "\n")


def write_card(path: Path, study: Study, facts: dict, evaluated: dict[str, Stage]) -> None:
    """Write a model card, from the same figures."""
    rows = read_test_rows(evaluated)
    results = _results(rows, study)
    told = {**_told(study, facts, rows, results), "rows": _rates(results, facts["method"]), "tasks": _kept(evaluated)}
    write_atomically(path, _template("model_card.md", escape=False).render(told) + "\n")


def summarise(evaluated: dict[str, Stage], study: Study) -> pandas.DataFrame:
    """Return the rates and scores before and after, with 95 % intervals, as text."""
    method = list(evaluated)[-1]
    rates = _rates(_results(read_test_rows(evaluated), study), method)
    return pandas.DataFrame(rates, columns=["", "original", "aligned"]).set_index("")


def show_changes(evaluated: dict[str, Stage]) -> pandas.DataFrame:
    """Return how many test prompts went from which verdict to which, by label."""
    return _changes(*read_test_rows(evaluated).values()).set_index("")


def _told(study: Study, facts: dict, rows: dict[str, pandas.DataFrame], results: pandas.DataFrame) -> dict:
    params, method = study.params, facts["method"]
    base, revision = split_source(params.model)
    return {
        "name": Path(base).name,
        "base": base,
        "revision": revision,
        "method": method,
        "verdict": _verdict(rows),
        "count": len(rows["Original"]),
        "test": f"Exact McNemar test of the two, strictly judged: p = {results.at['mcnemar_p', method]['value']:.3g}.",
        "choice": _choice(facts),
        "drift": _drift(facts["drift"]),
        "has_adapter": bool(facts["edited"]),
        "rank": facts["rank"],
        "judge": params.judge_model,
        "seed": params.seed,
        "version": __version__,
    }


def _choice(facts: dict) -> str:
    chosen = (
        f"Iteration {facts['best_iteration']} with {facts['l_select']} of {facts['sublayers']} sublayers an iteration "
        "was chosen on validation prompts, by strict F1."
        if facts["edited"]
        else "On validation prompts no iteration was better than the original, so nothing is edited."
    )
    return f"{chosen} The loop ended: {facts['stopped']}."


def _drift(drift: float) -> str:
    if math.isnan(drift):
        return "The original answered no benign test prompt well, so its drift on good replies is not known."
    return f"It finds the original's good replies {drift:+.3f} nats per token less likely than before (0 is no change)."


def _results(rows: dict[str, pandas.DataFrame], study: Study) -> pandas.DataFrame:
    """Return value, low and high by metric and method, over all prompts and by data set."""
    results = with_intervals(rows, "Original", seed=study.params.seed)
    wide = results.set_index(["dataset", "metric", "method"])["value"]
    pooled = wide.loc["all"].unstack("method")
    names = [name for name in pooled.index if not name.endswith(("_low", "_high"))]
    frame = pandas.DataFrame(index=names, columns=pooled.columns, dtype=object)
    for name in names:
        for method in pooled.columns:
            ends = [pooled[method].get(f"{name}_{end}", float("nan")) for end in ("low", "high")]
            frame.at[name, method] = {"value": pooled.at[name, method], "low": ends[0], "high": ends[1]}
    frame.attrs["by set"] = results[results["dataset"] != "all"]
    return frame


def _verdict(rows: dict[str, pandas.DataFrame]) -> str:
    before, after = (measure(table) for table in rows.values())
    if after["strict_f1"] <= before["strict_f1"]:
        return "No gain on the test prompts. Keep the original, or try other prompts or another judge."
    chance = compare_methods(*rows.values())
    if chance > LARGEST_CHANCE:
        return f"No gain that chance could not explain (p = {chance:.2g}). Keep the original, or test on more prompts."
    changes = [
        f"{name} from {100 * before[metric]:.1f} % to {100 * after[metric]:.1f} %"
        for metric, name in (("asr", "toxic prompts answered"), ("orr", "benign prompts refused"))
    ]
    return f"{'; '.join(changes).capitalize()}."


def _rates(results: pandas.DataFrame, method: str) -> list[tuple[str, str, str]]:
    both = ("Original", method)
    return [(name, *(_cell(results.at[metric, each]) for each in both)) for metric, name in ROWS.items()]


def _cell(figure: dict) -> str:
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def _data_sets(results: pandas.DataFrame, method: str) -> pandas.DataFrame:
    rates = results.attrs["by set"]
    rates = rates[rates["metric"].str.fullmatch(r".*_?(asr|orr)")]
    # A set of a user's own may hold toxic and benign prompts alike.
    what = rates["metric"].str.endswith("asr").map({True: "toxic, answered", False: "benign, refused"})
    table = (
        rates.assign(what=what).pivot(index=["dataset", "what", "n"], columns="method", values="value").reset_index()
    )
    table = table[["dataset", "what", "n", "Original", method]]
    return table.set_axis(["", "share of", "prompts", "original", "aligned"], axis=1).round(3)


def _changes(before: pandas.DataFrame, after: pandas.DataFrame) -> pandas.DataFrame:
    both = before.merge(after, on=["id", "label"], suffixes=("", "_after"), validate="one_to_one")
    counts = pandas.crosstab([both["label"], both["verdict"]], both["verdict_after"])
    counts = counts.reindex(columns=[name for name in VERDICTS if name in counts])
    counts.index = [f"{label}: {verdict}" for label, verdict in counts.index]
    return counts.rename_axis("").rename_axis(None, axis=1).reset_index()


def _categories(rows: dict[str, pandas.DataFrame]) -> pandas.DataFrame | None:
    counts = {}
    for name, table in zip(("original", "aligned"), rows.values(), strict=True):
        answered = table[(table["label"] == "toxic") & (table["verdict"] == "answered")]
        lines = [found for raw in answered["raw"] if (found := parse_guard_lines(str(raw)))]
        named = [category for found in lines for category in found.categories]
        counts[name] = pandas.Series(named, dtype=object).value_counts()
    table = pandas.DataFrame(counts).fillna(0).astype(int)
    return table.rename_axis("").reset_index() if len(table) else None


def _utility(evaluated: dict[str, Stage]) -> pandas.DataFrame | None:
    utility = read_utility(evaluated)
    if utility.empty:
        return None
    table = utility.pivot(index=["task", "metric", "n"], columns="method", values="value")[list(evaluated)]
    table = table.set_axis(["original", "aligned"], axis=1).round(3)
    # Where the original has 0 there is nothing to keep.
    table["kept"] = (table["aligned"] / table["original"].where(table["original"] > 0)).round(3)
    return table.reset_index()


def _kept(evaluated: dict[str, Stage]) -> str:
    table = _utility(evaluated)
    if table is None:
        return "No skill was measured: test the ones that you need."
    shares = [NOTHING if math.isnan(share) else f"{share:.2f}" for share in table["kept"]]
    kept = ", ".join(f"{task} {share}" for task, share in zip(table["task"], shares, strict=True))
    return f"Of what it could do before it keeps: {kept}."


def _candidates(history: pandas.DataFrame) -> pandas.DataFrame:
    best = history.loc[history.groupby("l_select")["strict_f1"].idxmax(), ["l_select", "iteration", "strict_f1"]]
    best["iterations"] = history.groupby("l_select")["iteration"].max().to_numpy()
    best.columns = ["sublayers an iteration", "best iteration", "strict F1 on validation", "iterations run"]
    return best.round(3)


def _draw_rates(results: pandas.DataFrame, method: str) -> Figure:
    figure = Figure(figsize=(6.5, 2.4), layout="constrained")
    axes = figure.add_subplot()
    models = {"original": ("Original", "#8A8A8A"), "aligned": (method, "#0072B2")}
    for shift, (label, (name, colour)) in enumerate(models.items()):
        figures = [results.at[metric, name] for metric in ROWS]
        values = [each["value"] for each in figures]
        ends = [
            [each["value"] - each["low"] for each in figures],
            [each["high"] - each["value"] for each in figures],
        ]
        places = [-place + 0.15 - 0.3 * shift for place in range(len(ROWS))]
        axes.errorbar(values, places, xerr=ends, fmt="o", color=colour, label=label, markersize=4, linewidth=1)
    axes.set_yticks([-place for place in range(len(ROWS))], list(ROWS.values()))
    axes.set_xlim(-0.02, 1.02)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _draw_history(history: pandas.DataFrame, chosen: int) -> Figure:
    figure = Figure(figsize=(6.5, 2.4), layout="constrained")
    axes = figure.add_subplot()
    for metric, colour in CURVES.items():
        axes.plot(history.index, history[metric], color=colour, label=ROWS[metric], linewidth=1.2)
    axes.axvline(chosen, color="0.5", linestyle=":")
    axes.set_xlabel("iteration")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _svg(figure: Figure) -> str:
    drawn = io.StringIO()
    # Without dates and random names the same figures give the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "llmva", "svg.fonttype": "none", "font.size": 9}):
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]


def _html(table: pandas.DataFrame | None) -> str:
    return "" if table is None else table.to_html(index=False, border=0, na_rep=NOTHING)


def _template(name: str, *, escape: bool) -> jinja2.Template:
    text = files("llmva.aligned_model").joinpath("templates", name).read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=escape, keep_trailing_newline=False).from_string(text)
