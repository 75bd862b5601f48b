"""Figures 14 to 16: layers and strengths of run-time steering, trait against coherence, and repetition over turns."""

import pandas
import seaborn
from matplotlib.figure import Figure

from llmva.core.vocabulary import RUNTIME_METHODS as METHODS
from llmva.paper.figures import style
from llmva.paper.figures.tidying import average, select
from llmva.paper.names import describe_runs

COLORS = dict(zip(METHODS, style.PALETTE, strict=False)) | {"aligned": "black", "malicious": style.GREY}
KEYS = ["threat", "method", "position", "layer", "alpha"]
CURVES = {"within": "within a reply", "across": "of earlier replies"}


def tidy_layers(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return the mean trait on validation by threat, method, layer and alpha, steering at all tokens."""
    cells = _cells(results)
    return cells[cells["position"] == "all"].drop(columns=["position", "coherence"])


def draw_layers(data: pandas.DataFrame) -> Figure:
    """Draw a map of layers and strengths for each threat and method."""

    def draw(axis, rows: pandas.DataFrame) -> None:
        grid = rows.pivot_table(index="layer", columns="alpha", values="trait").sort_index(ascending=False)
        options = {"vmin": 0, "vmax": 1, "cmap": "cividis", "cbar": False, "annot": True, "fmt": ".1f"}
        seaborn.heatmap(grid, ax=axis, annot_kws={"size": 6}, **options)
        axis.set_yticklabels([f"{int(layer)}" for layer in grid.index], rotation=0)
        axis.set_xticklabels([f"{alpha:g}" for alpha in grid.columns])
        axis.set_title(f"{rows['method'].iloc[0]}, {rows['threat'].iloc[0]}")

    options = {"row": "threat", "col": "method", "col_order": METHODS, "sharex": False, "sharey": False}
    return style.draw_facets(data, draw, size=(2.3, 1.7), **_labels("figure14", data), **options)


def tidy_frontiers(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return trait and coherence on validation of every cell that steers at all tokens, without controls."""
    cells = _cells(results)
    return cells[cells["position"] == "all"].drop(columns="position")


def draw_frontiers(data: pandas.DataFrame) -> Figure:
    """Draw each threat's cells by coherence and trait, and the best trait at each coherence as a line."""

    def draw(axis, rows: pandas.DataFrame) -> None:
        for method in METHODS:
            cells = rows[rows["method"] == method].sort_values("coherence", ascending=False)
            axis.plot(cells["coherence"], cells["trait"], ".", color=COLORS[method], alpha=0.4, markersize=3)
            axis.step(cells["coherence"], cells["trait"].cummax(), where="post", color=COLORS[method], label=method)
        axis.axvline(0.9, color=style.GREY, linestyle=":", linewidth=0.8)
        axis.set_xlim(0, 1.3)
        axis.set_ylim(-0.02, 1.02)
        axis.set_title(rows["threat"].iloc[0])

    return style.draw_facets(data, draw, size=(2.8, 2.2), col="threat", **_labels("figure15", data))


def tidy_turns(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return the shares of repeated 4-grams by threat, row, turn and kind, steering at all tokens."""
    rows = results.assign(position=results["position"].fillna(""))
    rows = rows[rows["position"] != "response"]
    wide = average(select(rows, list(CURVES), ["threat", "method", "turn"]), list(CURVES), ["threat", "method", "turn"])
    return wide.melt(["model", "threat", "method", "turn"], var_name="kind", value_name="share")


def draw_turns(data: pandas.DataFrame) -> Figure:
    """Draw a curve for each method and each unsteered side, a panel for each threat and kind of repetition."""

    def draw(axis, rows: pandas.DataFrame) -> None:
        for method, curve in rows.groupby("method", sort=False)[["turn", "share"]]:
            mean = curve.groupby("turn")["share"].mean()
            dashes = "--" if method in ("aligned", "malicious") else "-"
            axis.plot(mean.index, mean, color=COLORS[method], linestyle=dashes, label=method)
        axis.set_title(f"{CURVES[rows['kind'].iloc[0]]}, {rows['threat'].iloc[0]}")

    options = {"row": "kind", "col": "threat", "sharey": "row"}
    return style.draw_facets(data, draw, size=(2.8, 1.8), **_labels("figure16", data), **options)


def _labels(figure: str, data: pandas.DataFrame) -> dict[str, str]:
    """Return a figure's labels, with what its means are over."""
    labels, seeds = style.WORDS[figure]["labels"], data.groupby("model", sort=False)["seeds"].first().to_dict()
    return labels | {"note": labels["note"].format(runs=describe_runs(seeds))}


def _cells(results: pandas.DataFrame) -> pandas.DataFrame:
    rows = results[results["method"].isin(METHODS)]
    return average(select(rows, ["trait", "coherence"], KEYS), ["trait", "coherence"], KEYS)
