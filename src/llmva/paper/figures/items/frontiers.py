"""Figure 17: each method's settings by both failures, on test prompts."""

import numpy
import pandas
from matplotlib.figure import Figure

from llmva.core.vocabulary import MOVED_LOOP, ORIGINAL, OUR_LOOP, PAPER_LOOP, STRICT_RATES
from llmva.measures.frontier import hypervolume, on_front
from llmva.paper.figures import style
from llmva.paper.figures.tidying import average, select

FAILURES = list(STRICT_RATES)
# Of one setting each.
POINTS = {ORIGINAL: ("black", "X"), PAPER_LOOP: (style.BLUE, "o"), OUR_LOOP: (style.VERMILLION, "o")}
# Others that are named: those with the largest areas, on average over the models that are shown.
MAX_NAMED = 4
TICKS = (0, 0.05, 0.2, 0.5, 1)


def tidy_frontiers(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, method, trial and both failures of every setting on a method's front, and whether it is named."""
    rows = select(results, FAILURES, ["method", "trial"])
    points = average(rows, FAILURES, ["method", "trial"])
    areas = points.groupby(["model", "method"])[FAILURES].apply(lambda front: hypervolume(front.to_numpy()))
    others = areas.groupby("method").mean().drop([*POINTS, MOVED_LOOP], errors="ignore")
    named = {*POINTS, MOVED_LOOP, *others.nlargest(MAX_NAMED).index}
    return points.assign(named=points["method"].isin(named))


def draw_frontiers(data: pandas.DataFrame) -> Figure:
    """Draw every front as steps: a point beats all that lies above and to the right of it."""
    named = sorted(set(data.loc[data["named"], "method"]) - {*POINTS, MOVED_LOOP})
    palette = dict(zip(named, (style.GREEN, style.PURPLE, style.ORANGE, style.SKY), strict=False))
    colors = {MOVED_LOOP: style.VERMILLION, **palette}

    def draw(axis, rows: pandas.DataFrame) -> None:
        for method, front in rows.groupby("method", sort=False):
            if method in POINTS:
                color, marker = POINTS[method]
                look = {"color": color, "marker": marker, "markersize": 4, "linestyle": "none", "zorder": 3}
                axis.plot(front[FAILURES[0]], front[FAILURES[1]], label=method, **look)
                continue
            color = colors.get(method, style.PALE_GREY)
            front = front[on_front(front[FAILURES].to_numpy())].sort_values(FAILURES[0])
            # From the upper edge down to the first point, and from the last one to the right edge.
            x = [front[FAILURES[0]].iloc[0], *front[FAILURES[0]], 1.0]
            y = [1.0, *front[FAILURES[1]], front[FAILURES[1]].iloc[-1]]
            look = {"color": color, "linewidth": 1.6 if method == MOVED_LOOP else 0.9, "zorder": 1 + (method in colors)}
            axis.plot(x, y, drawstyle="steps-post", label=method if method in colors else style.OTHERS, **look)
            axis.plot(front[FAILURES[0]], front[FAILURES[1]], ".", color=color, markersize=4, zorder=look["zorder"])
        # Roots, since what matters lies in the corner.
        axis.set_xscale("function", functions=(numpy.sqrt, numpy.square))
        axis.set_yscale("function", functions=(numpy.sqrt, numpy.square))
        axis.set(xlim=(0, 1), ylim=(0, 1), xticks=TICKS, yticks=TICKS)
        axis.set_title(style.title_of(rows))

    return style.draw_models(data, draw, alone=(3.4, 3.0), among=(2.2, 2.0), **style.WORDS["figure17"]["labels"])
