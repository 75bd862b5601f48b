"""Figure 8: strict F1 and utility against the number of edited sublayers, L_select."""

import pandas
import seaborn
from matplotlib.figure import Figure

from llmva.paper.figures import style
from llmva.paper.figures.tidying import widen

WORDS = style.WORDS["figure8"]
MEASURES = WORDS["measures"]


def tidy_selection(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, L_select, strict F1, utility kept, and the L_select that was chosen."""
    return widen(results, list(MEASURES), ["l_select"]).merge(widen(results, ["chosen"]))


def draw_selection(data: pandas.DataFrame) -> Figure:
    """Draw strict F1 and utility against L_select, a line for each model, with the chosen one marked."""
    # A mean over seeds can lie between two candidates: the nearest one is marked.
    nearest = (data["l_select"] - data["chosen"]).abs().groupby(data["model"], sort=False).idxmin()
    marked = data.assign(marked=data.index.isin(nearest))
    shown = marked.melt(["model", "l_select", "marked"], list(MEASURES), "measure")
    labels = WORDS["labels"]
    if data["model"].nunique() > 1:
        labels = labels | {"note": f"{labels['note']} {WORDS['sideways']}"}
    return style.draw_facets(shown, _draw_measure, size=(3.3, 2.4), col="measure", sharey=False, **labels)


def _draw_measure(axis, rows: pandas.DataFrame) -> None:
    label, factor = MEASURES[rows["measure"].iloc[0]]
    rows, count = rows.assign(value=factor * rows["value"]), rows["model"].nunique()
    shared = {"x": "l_select", "y": "value", "hue": "model", "errorbar": None, "native_scale": True, "ax": axis}
    shared["dodge"] = 0.05 * count if count > 1 else False
    look = style.line_style("model", rows["model"].unique())
    marks = {"markers": list(look["markers"].values()), "markersize": 4, "markeredgewidth": 0, "linewidth": 1.3}
    seaborn.pointplot(rows, palette=look["palette"], **shared, **marks)
    # Empty where nothing was chosen, so that circles stand as far sideways as points do.
    chosen = rows.assign(value=rows["value"].where(rows["marked"]))
    seaborn.pointplot(chosen, palette=["black"] * count, legend=False, **shared, **style.CHOSEN_MARK)
    axis.plot([], [], label="Chosen on validation", **style.CHOSEN_MARK)
    axis.set_title(label)
