"""Figure 10: the score of Eq. 6 by sublayer."""

import pandas
from matplotlib.figure import Figure

from llmva.paper.figures import style
from llmva.paper.figures.tidying import split_sublayer, widen


def tidy_scores(results: pandas.DataFrame) -> pandas.DataFrame:
    """Return model, kind, layer and the score of Eq. 6."""
    return split_sublayer(widen(results, ["score"], ["sublayer"]))


def draw_scores(data: pandas.DataFrame) -> Figure:
    """Draw the score by layer, attention beside MLP."""
    return style.draw_models(data, _draw_model, alone=(3.4, 2.2), among=(2.3, 1.7), x="Layer", y="Score (Eq. 6)")


def _draw_model(axis, rows: pandas.DataFrame) -> None:
    axis.axhline(0, color="black", linewidth=0.6)
    style.draw_kinds(axis, rows, "layer", "score")
    axis.set_title(style.title_of(rows))
