"""Figures from `results/` alone: listed in `catalogue`, drawn in `drawing`; notebooks draw in the same style."""

from llmva.paper.figures.drawing import add_seeds, draw_figure
from llmva.paper.figures.style import paper_style

__all__ = ["add_seeds", "draw_figure", "paper_style"]
