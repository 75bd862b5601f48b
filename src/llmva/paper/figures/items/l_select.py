"""Figure 8: validation scores and utility against the number of edited sublayers, L_select."""

from typing import TYPE_CHECKING

import pandas

from llmva.paper.figures.style import CHOSEN_MARK, draw_facets, model_style
from llmva.paper.figures.tidying import widen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURES = {"strict_f1": ("Strict F1", 1), "kept": ("Utility kept (%)", 100)}
NOTE = (
    "Every point stands for five iterations. Circles: the number that the other figures and the tables have, chosen "
    "among fewer candidates (organisms: 8 and 12). Models are set a little apart sideways."
)


def tidy_selection(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, L_select, strict F1, utility kept, and the L_select that was chosen."""
    return widen(results, list(MEASURES), ["l_select"]).merge(widen(results, ["chosen"]))


def draw_selection(data: pandas.DataFrame) -> "Figure":
    """Draw strict F1 and utility against L_select, a line for each model, with the chosen one marked."""
    # A mean over seeds can lie between two candidates: the nearest one is marked.
    nearest = (data["l_select"] - data["chosen"]).abs().groupby(data["model"], sort=False).idxmin()
    shown = data.assign(marked=data.index.isin(nearest)).melt(["model", "l_select", "marked"], list(MEASURES), "measure")
    labels = {"x": "Edited sublayers, $L_{select}$", "y": "", "note": NOTE}
    return draw_facets(shown, _draw_measure, size=(3.3, 2.4), col="measure", sharey=False, **labels)


def _draw_measure(axis, rows: pandas.DataFrame) -> None:
    import seaborn

    label, factor = MEASURES[rows["measure"].iloc[0]]
    models = list(rows["model"].unique())
    style = model_style(models)
    shared = {"x": "l_select", "y": "value", "hue": "model", "dodge": 0.05 * len(models) * (len(models) > 1), "errorbar": None}
    shared |= {"native_scale": True, "ax": axis}
    rows = rows.assign(value=factor * rows["value"])
    looks = {"markers": list(style["markers"].values()), "linewidth": 1.3, "markersize": 4, "markeredgewidth": 0}
    seaborn.pointplot(rows, palette=style["palette"], **shared, **looks)
    # Empty where nothing was chosen, so that circles stand as far sideways as points do.
    chosen = rows.assign(value=rows["value"].where(rows["marked"]))
    seaborn.pointplot(chosen, palette=["black"] * len(models), legend=False, **shared, **CHOSEN_MARK)
    axis.plot([], [], label="Chosen on validation", **CHOSEN_MARK)
    axis.set_title(label)
