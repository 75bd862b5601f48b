"""Figure 10: the score of Eq. 6 by sublayer."""

from typing import TYPE_CHECKING

import pandas

from llmva.paper.figures.style import KIND_STYLE, KINDS, draw_models, title_of
from llmva.paper.figures.tidying import split_sublayer, widen

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tidy_scores(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, kind, layer and the score of Eq. 6."""
    return split_sublayer(widen(results, ["score"], ["sublayer"]))


def draw_scores(data: pandas.DataFrame) -> "Figure":
    """Draw the score by layer, attention beside MLP."""
    return draw_models(data, _draw_model, alone=(3.4, 2.2), among=(2.3, 1.7), x="Layer", y="Score (Eq. 6)")


def _draw_model(axis, rows: pandas.DataFrame) -> None:
    import seaborn
    from matplotlib.ticker import MaxNLocator

    axis.axhline(0, color="black", linewidth=0.6)
    seaborn.lineplot(rows.assign(kind=rows["kind"].map(KINDS)), x="layer", y="score", ax=axis, **KIND_STYLE)
    axis.set_title(title_of(rows))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
