"""Figures from `results/` alone: listed in `catalogue`, drawn and written in `drawing`."""

from llmva.paper.figures.drawing import add_seeds, draw_figure

__all__ = ["add_seeds", "draw_figure"]
