"""Figure 2: held-out prompts' projections on v_b and v_a, from an early to a late sublayer."""

import numpy
import pandas
import seaborn
from matplotlib.figure import Figure

from llmva.core.errors import InputError
from llmva.core.vocabulary import PRETRAINED_SETS, SAFETY_SETS
from llmva.paper.figures import style
from llmva.paper.figures.tidying import split_sublayer

CLASS_STYLES = {
    "benign": {"color": style.BLUE, "linestyle": "-"},
    "toxic": {"color": style.VERMILLION, "linestyle": "--"},
    "answered": {"color": style.GREEN, "linestyle": "-"},
    "refused": {"color": style.PURPLE, "linestyle": "--"},
}
VECTORS = {"benign": "$v_b$", "answer": "$v_a$"}
SUBLAYERS, BINS = 3, 24
LABELS = {**SAFETY_SETS, **PRETRAINED_SETS}


def tidy_projections(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return one row per sample, vector and sublayer, with the class that the vector should separate.

    The class is the prompt's label for v_b, and the observed verdict for v_a.
    """
    vectors = results["metric"].map({f"{vector}_projection": vector for vector in VECTORS})
    rows = results.assign(vector=vectors).dropna(subset=["vector", "sublayer", "verdict"])
    if unknown := sorted(set(rows["dataset"]) - set(LABELS)):
        raise InputError(f"{unknown[0]}: benign or toxic is not known; add the set to llmva.core.vocabulary")
    classes = rows["verdict"].where(rows["vector"] == "answer", rows["dataset"].map(LABELS))
    # A verdict that could not be read lies on neither side, and a vector that was not fitted gives no number.
    rows = rows.assign(**{"class": classes})[classes.isin(list(CLASS_STYLES)) & numpy.isfinite(rows["value"])]
    table = rows[["model", "sublayer", "vector", "dataset", "class", "value"]].rename(columns={"value": "projection"})
    return split_sublayer(table.reset_index(drop=True))


def draw_projections(data: pandas.DataFrame) -> Figure:
    """Draw how v_b separates benign from toxic and v_a answered from refused, a row for each model."""
    places = data[["model", "kind", "layer"]].drop_duplicates().sort_values(["model", "kind", "layer"])
    # Models differ in depth: their sublayers stand in columns by rank.
    places["rank"] = places.groupby("model").cumcount()
    data = data.merge(places[places["rank"] < SUBLAYERS])
    data["panel"] = data["vector"].map(list(VECTORS).index) * SUBLAYERS + data["rank"]
    models = data["model"].unique()
    grid = {"row": "model", "rows": models, "size": (1.5, 1.15)}
    if len(models) == 1:
        grid = {"col_wrap": data["rank"].nunique(), "size": (1.7, 1.35)}
    grid |= {"col": "panel", "sharex": False, "sharey": False}
    return style.draw_facets(data, _draw_distributions, x="Projection of the sublayer's output", **grid)


def _draw_distributions(axis, rows: pandas.DataFrame) -> None:
    axis.axvline(0, color="black", linewidth=0.6)
    edges = numpy.histogram_bin_edges(rows["projection"], bins=BINS)
    for name, look in CLASS_STYLES.items():
        values, shared = rows.loc[rows["class"] == name, "projection"], {"bins": edges, "stat": "density", "ax": axis}
        if len(values):
            seaborn.histplot(values, label=name, element="step", alpha=0.25, **look, **shared)
    first = rows.iloc[0]
    axis.set(title=f"{VECTORS[first['vector']]}, {style.KINDS[first['kind']]} {first['layer']}", yticks=[])
    axis.grid(False)
    axis.spines["left"].set_visible(False)
    axis.locator_params(axis="x", nbins=4, steps=[1, 2, 5, 10])
