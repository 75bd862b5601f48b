"""Figures from `results/` alone: listed in `catalogue`, drawn and written in `drawing`."""

from llmva.paper.figures.catalogue import APART, FIGURES
from llmva.paper.figures.drawing import (
    add_seeds,
    draw_figure,
    figure_data,
    main,
    save_figure,
    save_figures,
    with_results,
)

__all__ = [
    "APART",
    "FIGURES",
    "add_seeds",
    "draw_figure",
    "figure_data",
    "main",
    "save_figure",
    "save_figures",
    "with_results",
]
