"""Figures 1 and 9: the angle of v_a and v_b by sublayer, beside what permuted labels and random directions give."""

import pandas
from matplotlib.figure import Figure

from llmva.paper.figures import style
from llmva.paper.figures.tidying import average, select, split_sublayer, spread_runs

ANGLES = ["angle", *(f"angle_{name}" for name in ("null_low", "null_mean", "null_high", "random_low", "random_high"))]
# `null_draws` of every parameter file; results do not say it.
PERMUTATIONS = 50
PERMUTED = f"Middle 95 % of {PERMUTATIONS} permutations of the labels (band)"
RANDOM = "Middle 95 % of random directions"
RIGHT_ANGLE = 90
# A layer's attention comes before its MLP.
PLACES = {"attention": 0.0, "mlp": 0.5}
RANDOM_STYLE = {"color": style.GREY, "linewidth": 0.9, "linestyle": (0, (3, 1.5)), "zorder": 1.5}
RUN_STYLE = {"color": "#3A3A3A", "marker": "o", "markersize": 2.6, "linestyle": "none"}
RUN_STYLE |= {"markeredgecolor": "white", "markeredgewidth": 0.4, "zorder": 3}


def tidy_angles(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, kind, layer, the angle, its permuted-label null and that of random vectors, in degrees.

    `outside` counts the runs whose angle lies outside their own band of permuted labels: a mean over seeds has less
    spread than one run, and the bands are those of one run. Where there are several runs, `angle_run_1` and on are
    their angles.
    """
    rows, keys = select(results, ANGLES, ["sublayer"]), ["model", "sublayer"]
    # A sublayer without vectors has no angle, and is outside of nothing.
    runs = rows.pivot(index=[*keys, "slug"], columns="metric", values="value").dropna(subset="angle")
    outside = ~runs["angle"].between(runs["angle_null_low"], runs["angle_null_high"])
    counts = outside.groupby(keys).agg(outside="sum", runs="size").reset_index()
    single = spread_runs(rows[rows["metric"] == "angle"], "angle", ["sublayer"])
    table = average(rows, ANGLES, ["sublayer"])
    table = table.merge(counts, on=keys, how="left").merge(single, on=keys, how="left", validate="one_to_one")
    return split_sublayer(table.fillna({"outside": 0, "runs": 0}).astype({"outside": int, "runs": int}))


def draw_angles(data: pandas.DataFrame) -> Figure:
    """Draw the angle by layer, attention and MLP in turn, over its two references and the right angle."""
    labels = style.WORDS["figure9"]["labels"]
    labels = labels | {"note": labels["note"].format(chance=100 * chance_outside())}
    return style.draw_models(data, _draw_model, alone=(4.4, 2.8), among=(2.4, 1.8), **labels)


def chance_outside() -> float:
    """Return the probability that one more permutation lies outside the band of the others.

    The band's ends are the 2.5 % and 97.5 % sample quantiles, interpolated between order statistics, and a new draw
    lies below the k-th of n with probability k / (n + 1).
    """
    return 2 * (0.025 * (PERMUTATIONS - 1) + 1) / (PERMUTATIONS + 1)


def _draw_model(axis, rows: pandas.DataFrame) -> None:
    rows = rows.assign(place=rows["layer"] + rows["kind"].map(PLACES)).sort_values("place")
    axis.axhline(RIGHT_ANGLE, color="black", linewidth=0.8, linestyle=":")
    bounds = rows["angle_null_low"], rows["angle_null_high"]
    axis.fill_between(rows["place"], *bounds, color=style.GREY, alpha=0.2, linewidth=0, label=PERMUTED)
    for side in ("low", "high"):
        axis.plot(rows["place"], rows[f"angle_random_{side}"], label=RANDOM, **RANDOM_STYLE)
    for name in rows.filter(regex=r"^angle_run_\d+$"):
        axis.plot(rows["place"], rows[name], label="Single runs", **RUN_STYLE)
    style.draw_kinds(axis, rows, "place", "angle")
    axis.set_title(f"{style.title_of(rows)}\n{rows['outside'].sum()} of {rows['runs'].sum()} outside the band")
