"""One model's panels in figures 1, 2, 3, 9 and 10: tidy the model's results, then draw them on given axes."""

import numpy
import pandas

from llmva.core.errors import InputError
from llmva.core.vocabulary import SAFETY_SETS
from llmva.paper.figures.tidying import parse_metrics, print_name, spread_runs, title_of, widen

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#A24A80", "#E69F00", "#8A8A8A"
SKY = "#56B4E9"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS, DASHES = ("o", "s", "^", "D", "v", "P"), ("-", "--", ":", "-.")
KINDS = {"attention": "Attention", "mlp": "MLP"}
KIND_STYLES = {
    "attention": {"color": BLUE, "marker": "o", "linestyle": "-"},
    "mlp": {"color": VERMILLION, "marker": "s", "linestyle": "--"},
}
CLASS_STYLES = {
    "benign": {"color": BLUE, "linestyle": "-"},
    "toxic": {"color": VERMILLION, "linestyle": "--"},
    "answered": {"color": GREEN, "linestyle": "-"},
    "refused": {"color": PURPLE, "linestyle": "--"},
}
GROUPS = {0: "handled rightly", 1: "over-refusal", 2: "jailbreak", 3: "broken reply"}
GROUP_STYLES = {
    "handled rightly": {"color": GREY, "marker": "o", "s": 7, "alpha": 0.55},
    "over-refusal": {"color": BLUE, "marker": "^", "s": 15, "alpha": 0.85},
    "jailbreak": {"color": VERMILLION, "marker": "x", "s": 15, "alpha": 0.85},
    "broken reply": {"color": PURPLE, "marker": "s", "s": 9, "alpha": 0.85},
}
REFERENCES = ("null_low", "null_mean", "null_high", "random_low", "random_high")
PLANE_METHODS = {"Original": "before", "LLM-VA": "after"}
RANDOM_STYLE = {"color": GREY, "linewidth": 0.9, "linestyle": (0, (3, 1.5)), "zorder": 1.5}
RUN_STYLE = {"color": "#3A3A3A", "marker": "o", "markersize": 2.6, "linestyle": "none"}
RUN_STYLE |= {"markeredgecolor": "white", "markeredgewidth": 0.4, "zorder": 3}
# `null_draws` of every parameter file; results do not tell it.
PERMUTATIONS = 50
BINS = 24


def tidy_layers(results: pandas.DataFrame, names: tuple[str, ...]) -> pandas.DataFrame:
    """Return one row per model and sublayer, one column per name, from metrics `<name>.<kind>.<layer>`."""
    template = "<name>.<kind>.<layer>"
    return widen(parse_metrics(results, template, names), template, names)


def tidy_angles(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, kind, layer, the angle, its permuted-label null and that of random vectors, in degrees.

    `outside` counts the runs whose angle lies outside their own band of permuted labels: a mean over seeds has less
    spread than one run, and the bands are those of one run. Where there are several runs, `angle_run_1` and on are
    their angles.
    """
    names = ("angle", *(f"angle_{name}" for name in REFERENCES))
    parts = parse_metrics(results, "<name>.<kind>.<layer>", names)
    means, keys = widen(parts, "<name>.<kind>.<layer>", names), ["model", "kind", "layer"]
    # A sublayer without vectors has no angle, and is outside of nothing.
    runs = parts.pivot(index=[*keys, "slug"], columns="name", values="value").dropna(subset="angle")
    outside = ~runs["angle"].between(runs["angle_null_low"], runs["angle_null_high"])
    counts = outside.groupby(keys).agg(outside="sum", runs="size").reset_index().astype({"layer": int})
    single = spread_runs(parts[parts["name"] == "angle"], "angle", keys[1:]).astype({"layer": int})
    counted = means.merge(counts, on=keys, how="left", validate="one_to_one").merge(single, on=keys, how="left")
    return counted.fillna({"outside": 0, "runs": 0}).astype({"outside": int, "runs": int})


def tidy_scores(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, kind, layer and the score of Eq. 6."""
    return tidy_layers(results, ("score",))


def tidy_projections(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return one row per sample, vector and sublayer, with the class that the vector should separate.

    The class is the prompt's label for v_b, and the observed verdict for v_a.
    """
    parts = parse_metrics(results, "<vector>_projection.<kind>.<layer>.<verdict>")
    unknown = sorted(set(parts["dataset"]) - set(SAFETY_SETS))
    if unknown:
        raise InputError(f"{unknown[0]}: benign or toxic is not known; add the set to llmva.core.vocabulary")
    parts["class"] = parts["verdict"].where(parts["vector"] == "answer", parts["dataset"].map(SAFETY_SETS))
    # A verdict that could not be read lies on neither side, and a vector that was not fitted gives no number.
    parts = parts[parts["class"].isin(list(CLASS_STYLES)) & numpy.isfinite(parts["value"])]
    parts["layer"] = parts["layer"].astype(int)
    columns = ["model", "vector", "kind", "layer", "dataset", "class", "value"]
    return parts[columns].rename(columns={"value": "projection"}).reset_index(drop=True)


def tidy_plane(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return one row per model, method and sample: both projections, and the group in words."""
    names = ("benign_projection", "answer_projection", "group")
    wide = widen(parse_metrics(results, "<name>.<sample>", names), "<name>.<sample>", names, by=("method", "dataset"))
    return wide.assign(group=wide["group"].map(GROUPS))


def draw_angles(axes: list, data: pandas.DataFrame) -> None:
    """Draw the angle of v_a and v_b by layer, attention beside MLP, over its two references and the right angle."""
    for axis, (kind, rows) in zip(axes, _by_kind(data), strict=False):
        axis.axhline(RIGHT_ANGLE, color="black", linewidth=0.8, linestyle=":")
        bounds = rows["angle_null_low"], rows["angle_null_high"]
        axis.fill_between(rows["layer"], *bounds, color=GREY, alpha=0.2, linewidth=0, label=PERMUTED)
        for side in ("low", "high"):
            # Below everything else: the weaker of the two references.
            axis.plot(rows["layer"], rows[f"angle_random_{side}"], label=RANDOM, **RANDOM_STYLE)
        for name in rows.filter(regex=r"^angle_run_\d+$"):
            axis.plot(rows["layer"], rows[name], label="Single runs", **RUN_STYLE)
        axis.plot(rows["layer"], rows["angle"], label=KINDS[kind], **KIND_STYLES[kind])
        _finish_layers(axis, data)
        told = f"{KINDS[kind]}: {rows['outside'].sum()} of {rows['runs'].sum()} outside"
        axis.set_title(f"{axis.get_title()}\n{told}", fontsize=6.5)


def chance_outside(draws: int = PERMUTATIONS) -> float:
    """Return the probability that one more permutation lies outside the band of the others.

    The band's ends are the 2.5 % and 97.5 % sample quantiles, interpolated between order statistics, and a new draw
    lies below the k-th of n with probability k / (n + 1).
    """
    return 2 * (0.025 * (draws - 1) + 1) / (draws + 1)


def draw_scores(axes: list, data: pandas.DataFrame) -> None:
    """Draw the score of Eq. 6 by layer."""
    (axis,) = axes
    axis.axhline(0, color="black", linewidth=0.6)
    for kind, rows in _by_kind(data):
        axis.plot(rows["layer"], rows["score"], label=KINDS[kind], **KIND_STYLES[kind])
    _finish_layers(axis, data)


def draw_projections(axes: list, data: pandas.DataFrame) -> None:
    """Draw how v_b separates benign from toxic and v_a answered from refused, early to late."""
    sublayers = list(data[["kind", "layer"]].drop_duplicates().sort_values(["kind", "layer"]).itertuples(index=False))
    panels = [(vector, kind, layer) for vector in ("benign", "answer") for kind, layer in sublayers[: len(axes) // 2]]
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, (vector, kind, layer) in zip(axes, panels, strict=False):
        rows = data[(data["vector"] == vector) & (data["kind"] == kind) & (data["layer"] == layer)]
        _draw_distributions(axis, rows)
        axis.set_title(f"${'v_b' if vector == 'benign' else 'v_a'}$, {KINDS[kind]} {layer}")
        if axis.get_subplotspec().is_first_col():
            axis.set_ylabel(print_name(data["model"].iloc[0]).replace(" (", "\n("))


def draw_plane(axes: list, data: pandas.DataFrame) -> None:
    """Draw the samples in the plane of v_b and v_a, before and after alignment."""
    for axis, (method, when) in zip(axes, PLANE_METHODS.items(), strict=True):
        axis.axhline(0, color="black", linewidth=0.6)
        axis.axvline(0, color="black", linewidth=0.6)
        for group, style in GROUP_STYLES.items():
            rows = data[(data["method"] == method) & (data["group"] == group)]
            linewidth = 0.9 if style["marker"] == "x" else 0
            axis.scatter(
                rows["benign_projection"], rows["answer_projection"], label=group, linewidths=linewidth, **style
            )
        axis.set_title(f"{print_name(data['model'].iloc[0])}, {when}")
    # Both panels show projections on the same two vectors, so one scale serves both.
    for name in ("xlim", "ylim"):
        limits = numpy.array([getattr(axis, f"get_{name}")() for axis in axes])
        for axis in axes:
            axis.set(**{name: (limits.min(), limits.max())})


def model_style(number: int) -> dict:
    """Return the line and marker of a figure's nth model."""
    turn = number // len(PALETTE)
    style = {"color": PALETTE[number % len(PALETTE)], "marker": MARKERS[number % len(MARKERS)]}
    return style | {"linestyle": DASHES[turn % len(DASHES)], "markerfacecolor": "white" if turn else style["color"]}


PERMUTED = f"Middle 95 % of {PERMUTATIONS} permutations of the labels"
RANDOM = "Middle 95 % of random directions"
ANGLES_NOTE = (
    f"Outside: single runs outside the grey band of their own run, where a fresh permutation falls with a probability "
    f"of {100 * chance_outside():.1f} %. Lines and bands of several runs are means."
)
PLANE_NOTE = (
    "In both panels of a model, $v_a$ and $v_b$ are those of the original; markers show what the model of that panel "
    "does, before or after the alignment."
)
RIGHT_ANGLE = 90


def _by_kind(data: pandas.DataFrame) -> list[tuple[str, pandas.DataFrame]]:
    return [(kind, data[data["kind"] == kind].sort_values("layer")) for kind in KINDS if (data["kind"] == kind).any()]


def _finish_layers(axis, data: pandas.DataFrame) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_title(title_of(data))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def _draw_distributions(axis, rows: pandas.DataFrame) -> None:
    axis.axvline(0, color="black", linewidth=0.6)
    axis.grid(False)
    axis.spines["left"].set_visible(False)
    axis.set_yticks([])
    axis.locator_params(axis="x", nbins=4, steps=[1, 2, 5, 10])
    edges = numpy.histogram_bin_edges(rows["projection"], bins=BINS)
    for name in CLASS_STYLES:
        values = rows.loc[rows["class"] == name, "projection"]
        if len(values):
            style = CLASS_STYLES[name]
            heights, _ = numpy.histogram(values, bins=edges, density=True)
            axis.stairs(heights, edges, fill=True, color=style["color"], alpha=0.25)
            axis.stairs(heights, edges, label=name, **style)
