"""Figure 11: the loop with one consistent judge, and with two of different standards."""

import pandas
import seaborn
from matplotlib.figure import Figure

from llmva.paper.figures import style
from llmva.paper.figures.tidying import average, carry_forward, require_methods, select

JUDGINGS = {"one judge": "one judge", "combined judges": "two judges"}
WORDS = style.WORDS["figure11"]
RATES = WORDS["rates"]


def tidy_judges(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, method (one judge or two), iteration, and the rates by data set."""
    rows = select(results[results["method"].isin(list(JUDGINGS))], list(RATES), ["method", "iteration"])
    require_methods(rows, JUDGINGS)
    return average(carry_forward(rows, "model"), list(RATES), ["method", "iteration"])


def draw_judges(data: pandas.DataFrame) -> Figure:
    """Draw each rate against the iteration, a row for each way of judging, a line for each model."""
    shown = data.melt(["model", "method", "iteration"], list(RATES), "rate")
    options = {"row": "method", "row_order": list(JUDGINGS), "rows": JUDGINGS.values(), "col": "rate"}
    return style.draw_facets(shown, _draw_rate, size=(1.75, 1.5), **WORDS["labels"], **options)


def _draw_rate(axis, rows: pandas.DataFrame) -> None:
    look = style.line_style("model", rows["model"].unique())
    seaborn.lineplot(rows.assign(value=100 * rows["value"]), x="iteration", y="value", ax=axis, errorbar=None, **look)
    upper = rows["method"].iloc[0] == next(iter(JUDGINGS))
    axis.set(title=RATES[rows["rate"].iloc[0]] if upper else "", ylim=(-4, 104))
