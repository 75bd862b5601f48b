"""Figure 3: validation prompts in the plane of v_b and v_a, before and after the alignment."""

from typing import TYPE_CHECKING

import pandas

from llmva.core.vocabulary import ORIGINAL, PAPER_LOOP
from llmva.paper.figures.style import BLUE, GREY, PURPLE, VERMILLION, draw_facets, title_of
from llmva.paper.figures.tidying import require_methods, widen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GROUP_STYLES = {
    "handled rightly": {"color": GREY, "marker": "o", "s": 7, "alpha": 0.55, "linewidths": 0},
    "over-refusal": {"color": BLUE, "marker": "^", "s": 15, "alpha": 0.85, "linewidths": 0},
    "jailbreak": {"color": VERMILLION, "marker": "x", "s": 15, "alpha": 0.85, "linewidths": 0.9},
    "broken reply": {"color": PURPLE, "marker": "s", "s": 9, "alpha": 0.85, "linewidths": 0},
}
BEFORE_AFTER = {ORIGINAL: "before", PAPER_LOOP: "after"}
PROJECTIONS = ["benign_projection", "answer_projection"]
NOTE = (
    "In both panels of a model, $v_a$ and $v_b$ are those of the original; markers show what the model of that panel "
    "does, before or after the alignment."
)


def tidy_plane(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return one row per model, method and prompt: both projections, and the group in words."""
    table = widen(results, PROJECTIONS, ["method", "dataset", "id", "group"])
    require_methods(results, BEFORE_AFTER)
    return table[["model", "method", "dataset", "id", *PROJECTIONS, "group"]]


def draw_plane(data: pandas.DataFrame) -> "Figure":
    """Draw the prompts in the plane of v_b and v_a, before and after alignment."""
    alone = data["model"].nunique() == 1
    titles = {(model, method): _title(rows, method) for model, rows in data.groupby("model") for method in BEFORE_AFTER}
    figure = draw_facets(
        data.assign(panel=list(map(titles.get, zip(data["model"], data["method"], strict=True)))),
        _draw_panel,
        size=(2.4, 2.1) if alone else (2.2, 1.9),
        x="Projection on the benign vector $v_b$",
        y="Projection on the answer vector $v_a$",
        note=NOTE,
        col="panel",
        col_order=[titles[model, method] for model in data["model"].unique() for method in BEFORE_AFTER],
        col_wrap=2 if alone else 4,
        sharex=False,
        sharey=False,
    )
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
    return f"{title_of(rows)}, {BEFORE_AFTER[method]}" + " (no edit chosen)" * unchanged


def _draw_panel(axis, rows: pandas.DataFrame) -> None:
    axis.axhline(0, color="black", linewidth=0.6)
    axis.axvline(0, color="black", linewidth=0.6)
    for group, style in GROUP_STYLES.items():
        axis.scatter(*rows.loc[rows["group"] == group, PROJECTIONS].to_numpy().T, label=group, **style)
    axis.set_title(rows["panel"].iloc[0])
