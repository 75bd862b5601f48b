"""Figures from `results/` alone: PDF without a date, PNG, and the plotted data as CSV.

`python -m llmva.figures figure9 --models tiny-llama tiny-qwen2` draws one figure over the models
and one for each; `python -m llmva.figures all` draws every figure that has results.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pandas

from llmva import panels, paths
from llmva.errors import InputError, command
from llmva.params import known_slugs
from llmva.results import is_organism, read_results, result_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("paper.mplstyle")


@dataclass(frozen=True)
class Design:
    """How a figure is made.

    Attributes
    ----------
    source : str
        The item whose results it draws.
    tidy : callable
        Long results to the plotted data, with a column `model`.
    draw : callable
        Draws one model's plotted data on that model's axes.
    x, y : str
        What the axes show.
    alone, together : (int, int)
        Rows and columns of one model's panels, in a figure of its own and among other models.
    abreast : int
        Models side by side in the combined figure.
    size, size_alone : (float, float)
        Width and height of a panel in inches, among other models and in a figure of its own.
    shared : str
        Axes that have one scale in all panels: `"x"`, `"y"`, `"xy"` or none.
    single : bool
        Only the first model is drawn, and no panel files.
    """

    source: str
    tidy: Callable[[pandas.DataFrame], pandas.DataFrame]
    draw: Callable[[list, pandas.DataFrame], None]
    x: str
    y: str
    alone: tuple[int, int] = (1, 1)
    together: tuple[int, int] = (1, 1)
    abreast: int = 3
    size: tuple[float, float] = (2.3, 1.7)
    size_alone: tuple[float, float] = (3.4, 2.2)
    shared: str = ""
    single: bool = False


def draw_figure(item: str, slugs: Sequence[str]) -> "Figure":
    """Draw a figure over some models, as a current pyplot figure: a notebook shows it with `plt.show()`.

    Parameters
    ----------
    item : str
        `figure1`, `figure2`, `figure3`, `figure9` or `figure10`.
    slugs : sequence of str
        The models, one block of panels each; `figure1` shows the first alone.

    Raises
    ------
    InputError
        When the item is unknown, or a model's results are missing.
    """
    data = figure_data(item, slugs)
    return _drawn(_design(item), list(data["model"].unique()), data)


def figure_data(item: str, slugs: Sequence[str]) -> pandas.DataFrame:
    """Return the tidy data that a figure shows; arguments and errors as for `draw_figure`."""
    design = _design(item)
    shown = list(dict.fromkeys(slugs))[: 1 if design.single else None]
    data = design.tidy(read_results(design.source, shown))
    for slug in shown:
        if slug not in set(data["model"]):
            mend = f"run `make {item} MODELS={slug}`"
            raise InputError(f"{result_path(slug, design.source)}: nothing that {item} draws; {mend}")
    return data.sort_values("model", key=lambda models: models.map(shown.index), kind="stable", ignore_index=True)


def save_figure(figure: "Figure", name: str, data: pandas.DataFrame) -> list[Path]:
    """Write `figures/<name>.pdf`, `.png` and `.csv`, the same bytes for the same data."""
    import matplotlib.style

    with matplotlib.style.context(STYLE):
        contents = {
            # Dates and version strings would change the bytes from run to run and machine to machine.
            "pdf": _rendered(figure, "pdf", {"CreationDate": None, "Creator": None, "Producer": None}),
            "png": _rendered(figure, "png", {"Software": None}),
            "csv": data.to_csv(index=False, lineterminator="\n"),
        }
    files = [paths.FIGURES / f"{name}.{suffix}" for suffix in contents]
    for path, content in zip(files, contents.values(), strict=True):
        paths.write_atomically(path, content)
    return files


def save_figures(item: str, slugs: Sequence[str]) -> list[Path]:
    """Draw and write an item: over all models, and for each model beside it."""
    import matplotlib.pyplot

    names = {item: slugs}
    if not _design(item).single:
        names |= {f"{item}_{slug}": [slug] for slug in slugs}
    files = []
    for name, shown in names.items():
        figure = draw_figure(item, shown)
        files += save_figure(figure, name, figure_data(item, shown))
        matplotlib.pyplot.close(figure)
    return files


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Draw one figure or all, and tell which files were made."""
    import matplotlib

    # Files are all it makes, so that a machine without a display serves as well.
    matplotlib.use("Agg")
    parser = argparse.ArgumentParser(prog="python -m llmva.figures", description="Draw figures from results/.")
    parser.add_argument("item", help=f"{', '.join(FIGURES)}, or all: every figure that has results")
    parser.add_argument("--models", nargs="+", help="slugs; default: the organisms of papermill_params/")
    options = parser.parse_args(arguments)
    slugs = options.models or _default_models(options.item)
    for item in _items_with_results(slugs) if options.item == "all" else [options.item]:
        files = save_figures(item, slugs)
        print(f"wrote {files[0].with_suffix('')}.pdf, .png, .csv and {len(files) // 3 - 1} panels of single models")


def _design(item: str) -> Design:
    if item not in FIGURES:
        raise InputError(f"{item}: unknown figure; known are {', '.join(FIGURES)} (or all)")
    return FIGURES[item]


def _default_models(item: str) -> list[str]:
    organisms = [slug for slug in known_slugs() if is_organism(slug)]
    return ["tiny-llama"] if item in FIGURES and FIGURES[item].single else organisms


def _items_with_results(slugs: Sequence[str]) -> list[str]:
    # One model's results are enough to start a figure, and then each missing model is an error.
    sources = {name: design.source for name, design in FIGURES.items()}
    items = [name for name, source in sources.items() if any(result_path(slug, source).is_file() for slug in slugs)]
    if not items:
        raise InputError(f"{paths.RESULTS}: no figure's results for {', '.join(slugs)}; run `make figure9` first")
    return items


def _rendered(figure: "Figure", suffix: str, metadata: dict) -> bytes:
    stream = BytesIO()
    figure.savefig(stream, format=suffix, metadata=metadata)
    return stream.getvalue()


def _drawn(design: Design, slugs: list[str], data: pandas.DataFrame) -> "Figure":
    from matplotlib import pyplot

    alone = len(slugs) == 1
    rows, columns = design.alone if alone else design.together
    width, height = design.size_alone if alone else design.size
    abreast = min(design.abreast, len(slugs))
    down = -(-len(slugs) // abreast)
    with pyplot.style.context(STYLE):
        size = (columns * abreast * width + 0.4, rows * down * height + 0.6)
        figure = pyplot.figure(figsize=size, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
        axes = figure.subplots(
            rows * down, columns * abreast, squeeze=False, sharex="x" in design.shared, sharey="y" in design.shared
        )
        for place, slug in enumerate(slugs):
            top, left = rows * (place // abreast), columns * (place % abreast)
            block = axes[top : top + rows, left : left + columns].ravel().tolist()
            design.draw(block, data[data["model"] == slug])
        _finish(figure, axes, design)
    return figure


def _finish(figure: "Figure", axes, design: Design) -> None:
    labels = {}
    for axis in axes.ravel():
        if not axis.has_data():
            axis.set_axis_off()
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            labels.setdefault(label, handle)
    if axes.size == 1:
        axes[0, 0].set(xlabel=design.x, ylabel=design.y)
    else:
        figure.supxlabel(design.x)
        figure.supylabel(design.y)
    figure.legend(labels.values(), labels.keys(), loc="outside upper center", ncols=len(labels))


ANGLES = {
    "source": "figure9",
    "tidy": panels.tidy_angles,
    "draw": panels.draw_angles,
    "x": "Layer",
    "y": "Angle between $v_a$ and $v_b$ (degrees)",
    "shared": "y",
}
FIGURES = {
    "figure1": Design(**ANGLES, single=True),
    "figure2": Design(
        source="figure2",
        tidy=panels.tidy_projections,
        draw=panels.draw_projections,
        x="Projection of the sublayer's output",
        y="",
        alone=(2, 3),
        together=(1, 6),
        abreast=1,
        size=(1.5, 1.15),
        size_alone=(1.7, 1.35),
    ),
    "figure3": Design(
        source="figure3",
        tidy=panels.tidy_plane,
        draw=panels.draw_plane,
        x="Projection on the benign vector $v_b$",
        y="Projection on the answer vector $v_a$",
        alone=(1, 2),
        together=(1, 2),
        abreast=2,
        size=(2.2, 1.9),
        size_alone=(2.4, 2.1),
    ),
    "figure9": Design(**ANGLES),
    "figure10": Design(
        source="figure10",
        tidy=panels.tidy_scores,
        draw=panels.draw_scores,
        x="Layer",
        y="Score (Eq. 6)",
        shared="y",
    ),
}


if __name__ == "__main__":
    main()
