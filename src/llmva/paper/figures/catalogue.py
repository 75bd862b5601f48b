"""The figures that can be drawn: for each, its results, from results to the plotted data, and the drawing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas
from matplotlib.figure import Figure

from llmva.paper.display import Catalogue, Item
from llmva.paper.figures.items import (
    angles,
    distortion,
    framework,
    frontiers,
    iterations,
    judges,
    l_select,
    llm_va_r,
    plane,
    projections,
    runtime,
    scores,
    utility,
)
from llmva.paper.figures.tidying import read_long


@dataclass(frozen=True)
class Design(Item):
    """How a figure is made: from which one source, how that becomes the plotted data, and how these are drawn.

    A drawing without data has no source; plotted data have a column `model`. Only the first `most` models are
    drawn, where it is set. `single`: each model has files of its own as well. `averaged`: several seeds of a model
    become one, their mean. `means`: it shows means over models, so that organisms and real models need a figure each.
    `optional`: its metrics may be missing, and then it is left out beside others.
    """

    tidy: Callable[[pandas.DataFrame], pandas.DataFrame]
    draw: Callable[[pandas.DataFrame], Figure]
    most: int | None = None
    single: bool = True
    averaged: bool = True
    means: bool = False
    optional: bool = False

    def is_ready(self, slugs: Sequence[str]) -> bool:
        """Tell whether one model's results are there, and hold what an optional figure draws."""
        present = self.with_results(slugs)
        if not (self.optional and present):
            return bool(present)
        return not self.tidy(read_long(*self.sources, present, averaged=False)).empty


OF_FRESH_ORGANISMS = {"single": False, "averaged": False, "means": True}
FIGURES = Catalogue(
    "figure",
    {
        "figure1": Design(("figure9",), angles.tidy_angles, angles.draw_angles, most=1),
        "figure2": Design(("figure2",), projections.tidy_projections, projections.draw_projections, averaged=False),
        "figure3": Design(("figure3",), plane.tidy_plane, plane.draw_plane, averaged=False),
        "figure4": Design((), framework.list_parts, framework.draw_framework, single=False, averaged=False),
        "figure5": Design(("utility",), utility.tidy_utility, utility.draw_utility, means=True),
        "figure6": Design(("figure6",), distortion.tidy_distortion, distortion.draw_distortion),
        "figure7": Design(("figure12",), iterations.tidy_scores, iterations.draw_iterations, most=3),
        "figure8": Design(("figure8",), l_select.tidy_selection, l_select.draw_selection),
        "figure9": Design(("figure9",), angles.tidy_angles, angles.draw_angles),
        "figure10": Design(("figure10",), scores.tidy_scores, scores.draw_scores),
        "figure11": Design(("figure11",), judges.tidy_judges, judges.draw_judges),
        "figure12": Design(("figure12",), iterations.tidy_rates, iterations.draw_iterations),
        "figure12_health": Design(("figure12",), iterations.tidy_health, iterations.draw_health, optional=True),
        "figure13": Design(("ridge",), llm_va_r.tidy_parts, llm_va_r.draw_parts, **OF_FRESH_ORGANISMS),
        "figure13_controls": Design(
            ("ridge",), llm_va_r.tidy_controls, llm_va_r.draw_parts, optional=True, **OF_FRESH_ORGANISMS
        ),
        "figure14": Design(("runtime_sweep",), runtime.tidy_layers, runtime.draw_layers, means=True),
        "figure15": Design(("runtime_sweep",), runtime.tidy_frontiers, runtime.draw_frontiers, means=True),
        "figure16": Design(("runtime_turns",), runtime.tidy_turns, runtime.draw_turns, means=True),
        "figure17": Design(("frontier",), frontiers.tidy_frontiers, frontiers.draw_frontiers, averaged=False),
    },
    # Of organisms that took no part in the design of LLM-VA-R, and of those that are steered at run time: never of the
    # models of the other figures.
    apart=("figure13", "figure13_controls", "figure14", "figure15", "figure16"),
    first="figure9",
)
