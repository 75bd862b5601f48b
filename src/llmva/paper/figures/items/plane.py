"""Figure 3: validation prompts in the plane of v_b and v_a, before and after the alignment."""

import pandas
from matplotlib.figure import Figure

from llmva.core.vocabulary import ORIGINAL, PAPER_LOOP
from llmva.paper.figures import style
from llmva.paper.figures.tidying import require_methods, widen

GROUP_STYLES = {
    "handled rightly": {"color": style.GREY, "marker": "o", "s": 7, "alpha": 0.55, "linewidths": 0},
    "over-refusal": {"color": style.BLUE, "marker": "^", "s": 15, "alpha": 0.85, "linewidths": 0},
    "jailbreak": {"color": style.VERMILLION, "marker": "x", "s": 15, "alpha": 0.85, "linewidths": 0.9},
    "broken reply": {"color": style.PURPLE, "marker": "s", "s": 9, "alpha": 0.85, "linewidths": 0},
}
BEFORE_AFTER = {ORIGINAL: "before", PAPER_LOOP: "after"}
PROJECTIONS = ["benign_projection", "answer_projection"]


def tidy_plane(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return one row per model, method and prompt: both projections, and the group in words."""
    table = widen(results, PROJECTIONS, ["method", "dataset", "id", "group"])
    require_methods(results, BEFORE_AFTER)
    return table[["model", "method", "dataset", "id", *PROJECTIONS, "group"]]


def draw_plane(data: pandas.DataFrame) -> Figure:
    """Draw the prompts in the plane of v_b and v_a, before and after alignment."""
    models = data.groupby("model", sort=False)
    titles = {(model, method): _title(rows, method) for model, rows in models for method in BEFORE_AFTER}
    shown = data.assign(panel=[titles[key] for key in zip(data["model"], data["method"], strict=True)])
    size, abreast = ((2.4, 2.1), 2) if len(models) == 1 else ((2.2, 1.9), 4)
    options = {"col": "panel", "col_order": titles.values(), "col_wrap": abreast, "sharex": False, "sharey": False}
    figure = style.draw_facets(shown, _draw_panel, size=size, **style.WORDS["figure3"]["labels"], **options)
    # Both panels of a model show projections on the same two vectors, so one scale serves both.
    for before, after in zip(figure.axes[::2], figure.axes[1::2], strict=True):
        after.sharex(before)
        after.sharey(before)
        after.autoscale()
    return figure


def _title(rows: pandas.DataFrame, method: str) -> str:
    """Return a panel's title, which says where no edit was chosen: then both panels show one cloud."""
    before, after = (rows[rows["method"] == name].set_index("id")[PROJECTIONS].sort_index() for name in BEFORE_AFTER)
    unchanged = method == PAPER_LOOP and before.equals(after)
    return f"{style.title_of(rows)}, {BEFORE_AFTER[method]}" + " (no edit chosen)" * unchanged


def _draw_panel(axis, rows: pandas.DataFrame) -> None:
    axis.axhline(0, color="black", linewidth=0.6)
    axis.axvline(0, color="black", linewidth=0.6)
    for group, look in GROUP_STYLES.items():
        axis.scatter(*rows.loc[rows["group"] == group, PROJECTIONS].to_numpy().T, label=group, **look)
    axis.set_title(rows["panel"].iloc[0])
