"""One model's panels in figures 6, 7, 11 and 12: distorted vectors, iterations, and the judges of the loop."""

import functools
from collections.abc import Sequence

import pandas

from llmva.paper.figures.panels import BLUE, GREEN, GREY, ORANGE, PURPLE, RIGHT_ANGLE, SKY, VERMILLION
from llmva.paper.figures.tidying import (
    carry_forward,
    count_stops,
    parse_metrics,
    read_constants,
    require_methods,
    title_of,
    widen,
)

# Scores are shares of 1; everything else is a rate, and is printed in per cent.
SCORES = {
    "strict_f1": ("Strict F1", {"color": BLUE, "linestyle": "-"}),
    "f1": ("F1", {"color": ORANGE, "linestyle": "--"}),
}
RATES = {
    "asr": ("ASR", {"color": VERMILLION, "linestyle": "-"}),
    "orr": ("ORR", {"color": GREEN, "linestyle": "--"}),
    "degenerate": ("Degenerate", {"color": "black", "linestyle": ":"}),
}
HEALTH = {
    "mean_angle": ("Angle\n(degrees)", 1),
    "mean_scale": ("Scale $s$", 1),
    "mean_accuracy_answer": ("Accuracy\nof $v_a$ (%)", 100),
    "divergence": ("Divergence\n(nats/token)", 1),
}
JUDGINGS = {"one judge": "one judge", "combined judges": "two judges"}
JUDGED = {
    "seval_attack_asr": ("ASR, S-Eval attack", {"color": VERMILLION, "linestyle": "-"}),
    "seval_risk_asr": ("ASR, S-Eval risk", {"color": PURPLE, "linestyle": "-."}),
    "orfuzzset_orr": ("ORR, ORFuzzSet", {"color": GREEN, "linestyle": "--"}),
    "nq_orr": ("ORR, NQ", {"color": SKY, "linestyle": (0, (4, 1, 1, 1, 1, 1))}),
    "strict_f1": ("Strict F1 (× 100)", {"color": "black", "linestyle": ":"}),
}
# `probe.iterations` of every parameter file; results do not tell it.
ITERATIONS = 5
BEST_F1 = f"F1, best of {ITERATIONS} iterations,\nthe original included"
JUDGES_NOTE = (
    "On validation prompts. Each panel is scored by the judges that its own loop learnt from, so the two panels of a "
    "model begin at different values: two judges take evasions on benign prompts for refusals."
)
STOPS_NOTE = "The x axes differ: a run stops where its strict F1 falls below 0.1 and below half of the original's."


def tidy_distortion(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return, per model and angle, both scores' mean, lowest and highest over draws, and the original's."""
    template, names = "<name>.<degrees>.<draw>", list(SCORES)
    rows = results[results["dataset"] == "validation"]
    draws = widen(parse_metrics(rows, template, names), template, names)
    groups = draws.groupby(["model", "degrees"])[names]
    ends = {"": groups.mean(), "_low": groups.min(), "_high": groups.max()}
    table = pandas.concat([frame.add_suffix(end) for end, frame in ends.items()], axis="columns").reset_index()
    return table.merge(read_constants(rows, [f"original_{name}" for name in names]), on="model")


def draw_distortion(axes: list, data: pandas.DataFrame) -> None:
    """Draw F1 against the angle between the vectors used and those fitted, with the original's F1."""
    (axis,) = axes
    for name, (label, style) in SCORES.items():
        marker = "o" if name == "strict_f1" else "s"
        axis.fill_between(
            data["degrees"], data[f"{name}_low"], data[f"{name}_high"], color=style["color"], alpha=0.2, linewidth=0
        )
        axis.plot(data["degrees"], data[name], label=label, marker=marker, **style)
    # Mostly one line: hardly a reply of the original counts as broken.
    for original in {data[f"original_{name}"].iloc[0]: None for name in SCORES}:
        axis.axhline(original, color="black", linewidth=0.9, linestyle=(0, (1, 1.2)), label="Original")
    # Named in grey, since it stands behind both lines.
    axis.fill_between([], [], color=GREY, alpha=0.3, linewidth=0, label="Range of the draws")
    axis.set_title(title_of(data))
    axis.set_xticks(range(0, RIGHT_ANGLE + 1, 30))
    axis.set_ylim(0, 1.04)


def tidy_iterations(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, iteration, F1, strict F1, rates, how many runs stopped there, and the iteration that was chosen."""
    return _by_iteration(results, [*SCORES, *RATES])


def draw_iterations(axes: list, data: pandas.DataFrame) -> None:
    """Draw scores and rates against the iteration, with the chosen iteration marked, and where runs stopped."""
    upper, lower = axes
    for name, (label, style) in SCORES.items():
        upper.plot(data["iteration"], data[name], label=label, **style)
    for name, (label, style) in RATES.items():
        lower.plot(data["iteration"], 100 * data[name], label=label, **style)
    lower.set_ylim(-4, 104)
    chosen = _chosen(data)
    upper.plot(chosen["iteration"], chosen["strict_f1"], **CHOSEN_MARK)
    _mark_stops(upper, data, "strict_f1")
    _mark_stops(lower, data, "degenerate", 100)
    upper.set_title(title_of(data))
    for axis, label in ((upper, None), (lower, "Chosen iteration")):
        axis.axvline(chosen["iteration"].iloc[0], label=label, **CHOSEN_LINE)
        _count_iterations(axis)


def tidy_health(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, iteration, the loop's own means that were logged, and the iteration that was chosen."""
    names = set(results["metric"].str.rpartition(".")[0])
    logged = [name for name in HEALTH if name in names]
    if not logged:
        return pandas.DataFrame({"model": []})
    # One by one, since not every quantity is logged at every iteration.
    curves = [_by_iteration(results, [name]) for name in logged]
    return functools.reduce(lambda left, right: left.merge(right, how="outer"), curves)


def draw_health(axes: list, data: pandas.DataFrame) -> None:
    """Draw angle, scale, accuracy and divergence against the iteration, with the chosen iteration marked."""
    axes[0].set_title(title_of(data), loc="left")
    for axis, (name, (_, factor)) in zip(axes, HEALTH.items(), strict=True):
        if name not in data:
            axis.set_axis_off()
            continue
        axis.plot(data["iteration"], factor * data[name], color=BLUE)
        _mark_stops(axis, data, name, factor)
        axis.axvline(_chosen(data)["iteration"].iloc[0], label="Chosen iteration", **CHOSEN_LINE)
        _count_iterations(axis)


def tidy_judges(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, method (one judge or two), iteration, the rates by data set, and strict F1."""
    template = "<name>.<iteration>"
    parts = parse_metrics(results[results["method"].isin(list(JUDGINGS))], template, list(JUDGED))
    require_methods(parts, list(JUDGINGS))
    return widen(carry_forward(parts, "model"), template, list(JUDGED), by=("method",))


def draw_judges(axes: list, data: pandas.DataFrame) -> None:
    """Draw the rates against the iteration, with one consistent judge and with two of different standards."""
    for axis, (method, name) in zip(axes, JUDGINGS.items(), strict=True):
        rows = data[data["method"] == method]
        for metric, (label, style) in JUDGED.items():
            axis.plot(rows["iteration"], 100 * rows[metric], label=label, **style)
        axis.set_ylim(-4, 104)
        axis.set_title(f"{title_of(data)},\n{name}")
        _count_iterations(axis)


CHOSEN_MARK = {"color": "black", "marker": "o", "markersize": 5, "markerfacecolor": "none", "linestyle": "none"}
STOP_MARK = {"color": "black", "marker": "X", "markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.5}
STOP_MARK |= {"linestyle": "none", "zorder": 3, "clip_on": False}
CHOSEN_LINE = {"color": "black", "linewidth": 0.6, "zorder": 1.5}


def _by_iteration(results: pandas.DataFrame, names: Sequence[str]) -> pandas.DataFrame:
    template, rows = "<name>.<iteration>", results[results["dataset"] == "validation"]
    curves = widen(carry_forward(parse_metrics(rows, template, names), "model"), template, names)
    stops = count_stops(parse_metrics(rows, template, ["strict_f1"]), "model").drop(columns="method")
    curves = curves.merge(stops, how="left").fillna({"stopped": 0}).astype({"stopped": int})
    return curves.merge(read_constants(results, ["best_iteration"]), on="model")


def _chosen(data: pandas.DataFrame) -> pandas.DataFrame:
    # A mean over seeds can lie between two iterations: the nearest one is marked.
    nearest = (data["iteration"] - data["best_iteration"]).abs().idxmin()
    return data.loc[[nearest]]


def _mark_stops(axis, data: pandas.DataFrame, name: str, factor: float = 1) -> None:
    # Not every quantity is logged where a run stops: then its curve's end is marked.
    ends = [data.loc[:stop, name].last_valid_index() for stop in data.index[data["stopped"] > 0]]
    if ends:
        rows = data.loc[ends]
        axis.plot(rows["iteration"], factor * rows[name], label="Run stopped", **STOP_MARK)


def _count_iterations(axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
