"""Figure 2: held-out prompts' projections on v_b and v_a, from an early to a late sublayer."""

from typing import TYPE_CHECKING

import numpy
import pandas

from llmva.core.errors import InputError
from llmva.core.vocabulary import SAFETY_SETS
from llmva.paper.figures.style import BLUE, GREEN, KINDS, PURPLE, VERMILLION, draw_facets
from llmva.paper.figures.tidying import split_sublayer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASS_STYLES = {
    "benign": {"color": BLUE, "linestyle": "-"},
    "toxic": {"color": VERMILLION, "linestyle": "--"},
    "answered": {"color": GREEN, "linestyle": "-"},
    "refused": {"color": PURPLE, "linestyle": "--"},
}
VECTORS = {"benign": "$v_b$", "answer": "$v_a$"}
SUBLAYERS, BINS = 3, 24


def tidy_projections(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return one row per sample, vector and sublayer, with the class that the vector should separate.

    The class is the prompt's label for v_b, and the observed verdict for v_a.
    """
    rows = results.dropna(subset=["sublayer", "verdict"])
    rows = rows[rows["metric"].isin([f"{vector}_projection" for vector in VECTORS])]
    if unknown := sorted(set(rows["dataset"]) - set(SAFETY_SETS)):
        raise InputError(f"{unknown[0]}: benign or toxic is not known; add the set to llmva.core.vocabulary")
    vectors = rows["metric"].str.removesuffix("_projection")
    classes = rows["verdict"].where(vectors == "answer", rows["dataset"].map(SAFETY_SETS))
    rows = rows.assign(vector=vectors, projection=rows["value"], **{"class": classes})
    # A verdict that could not be read lies on neither side, and a vector that was not fitted gives no number.
    rows = rows[rows["class"].isin(list(CLASS_STYLES)) & numpy.isfinite(rows["projection"])]
    table = rows[["model", "sublayer", "vector", "dataset", "class", "projection"]].reset_index(drop=True)
    return split_sublayer(table) if len(table) else table


def draw_projections(data: pandas.DataFrame) -> "Figure":
    """Draw how v_b separates benign from toxic and v_a answered from refused, a row for each model."""
    places = data[["model", "kind", "layer"]].drop_duplicates().sort_values(["model", "kind", "layer"])
    # Models differ in depth: their sublayers stand in columns by rank.
    places["rank"] = places.groupby("model").cumcount()
    data = data.merge(places[places["rank"] < SUBLAYERS])
    data["panel"] = data["vector"].map(list(VECTORS).index) * SUBLAYERS + data["rank"]
    options = {"col": "panel", "sharex": False, "sharey": False, "x": "Projection of the sublayer's output", "y": ""}
    models = list(data["model"].unique())
    if len(models) == 1:
        return draw_facets(data, _draw_distributions, size=(1.7, 1.35), col_wrap=SUBLAYERS, **options)
    figure = draw_facets(data, _draw_distributions, size=(1.5, 1.15), row="model", **options)
    for axis, model in zip(figure.axes[:: len(figure.axes) // len(models)], models, strict=True):
        axis.set_ylabel(model)
    return figure


def _draw_distributions(axis, rows: pandas.DataFrame) -> None:
    import seaborn

    axis.axvline(0, color="black", linewidth=0.6)
    edges = numpy.histogram_bin_edges(rows["projection"], bins=BINS)
    shared = {"bins": edges, "stat": "density", "element": "step", "ax": axis}
    for name, style in CLASS_STYLES.items():
        values = rows.loc[rows["class"] == name, "projection"]
        if len(values):
            seaborn.histplot(values, label=name, alpha=0.25, **style, **shared)
    first = rows.iloc[0]
    axis.set_title(f"{VECTORS[first['vector']]}, {KINDS[first['kind']]} {first['layer']}")
    axis.set_yticks([])
    axis.grid(False)
    axis.spines["left"].set_visible(False)
    axis.locator_params(axis="x", nbins=4, steps=[1, 2, 5, 10])
