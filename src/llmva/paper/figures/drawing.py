"""Figures from `results/` alone: PDF without a date, PNG, and the plotted data as CSV.

`python -m llmva.paper.figures figure9 --models tiny-llama tiny-qwen2` draws one figure over the models
and one for each; `python -m llmva.paper.figures all` draws every figure that has results. With
`--seeds 3`, the organisms' seeds `-s1` and `-s2` join in where they have results, as a mean.
"""

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pandas

from llmva.core import paths
from llmva.core.errors import InputError, command
from llmva.core.params import known_slugs
from llmva.core.results import is_organism, result_path
from llmva.paper import names
from llmva.paper.figures.catalogue import APART, FIGURES, Design
from llmva.paper.figures.style import paper_style
from llmva.paper.figures.tidying import group_seeds, read_long

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_figure(item: str, slugs: Sequence[str] = ()) -> "Figure":
    """Draw a figure over some models, as a current pyplot figure: a notebook shows it with `plt.show()`.

    Parameters
    ----------
    item : str
        A key of `FIGURES`.
    slugs : sequence of str
        The models; several seeds of one (`tiny-llama`, `tiny-llama-s1`) are drawn as their mean,
        except where single samples are shown. `figure1` shows the first model alone, `figure7`
        the first three, `figure4` none.

    Raises
    ------
    InputError
        When the item is unknown, a model's results or one of its metrics are missing, or organisms
        and real models would go into one mean.
    """
    return _design(item).compose(figure_data(item, slugs))


def figure_data(item: str, slugs: Sequence[str] = ()) -> pandas.DataFrame:
    """Return the tidy data that a figure shows; arguments and errors as for `draw_figure`.

    Where seeds are averaged, the column `seeds` has their number.
    """
    design = _design(item)
    if not design.source:
        return design.tidy(None)
    models = dict(list(_models(design, slugs).items())[: design.most])
    if design.means and len({is_organism(model) for model in models}) > 1:
        raise InputError(f"{item}: --models: organisms and real models have no common mean; name one kind")
    shown = [slug for members in models.values() for slug in members]
    data = design.tidy(read_long(design.source, shown, averaged=design.averaged))
    for model, members in models.items():
        if model not in set(data["model"]):
            fix = f"run `make {design.source} MODELS={members[0]}`"
            raise InputError(f"{result_path(members[0], design.source)}: nothing that {item} draws; {fix}")
    if design.averaged:
        data = data.assign(seeds=data["model"].map(lambda model: len(models[model])))
    order = list(models)
    return data.sort_values("model", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def add_seeds(item: str, slugs: Sequence[str], seeds: int) -> list[str]:
    """Return the slugs, each organism followed by its seeds `-s1` and on that have results for a figure.

    Where a figure shows no means over seeds, none are added.
    """
    design = _design(item)
    wanted = names.add_seeds(slugs, seeds if design.averaged else 1)
    return [slug for slug in wanted if slug in slugs or result_path(slug, design.source).is_file()]


def save_figure(figure: "Figure", name: str, data: pandas.DataFrame) -> list[Path]:
    """Write `figures/<name>.pdf`, `.png` and `.csv`, the same bytes for the same data."""
    with paper_style():
        # The layout is found once and serves both formats.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
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


def save_figures(item: str, slugs: Sequence[str] = ()) -> list[Path]:
    """Draw and write an item: over all models, and for each model beside it.

    A figure that shows means over models is drawn for real models and organisms apart, as
    `<item>` and `<item>_organisms`, where both are named.
    """
    return [file for name, shown in _file_names(item, slugs).items() for file in _save_one(item, name, shown)]


def _file_names(item: str, slugs: Sequence[str]) -> dict[str, list[str]]:
    """Return the slugs of each figure that an item is written as."""
    design = _design(item)
    kinds = {name: [slug for slug in slugs if is_organism(slug) is name] for name in (False, True)}
    names = {item: list(slugs)}
    if design.means and all(kinds.values()):
        names = {item: kinds[False], f"{item}_organisms": kinds[True]}
    if design.single and design.most is None:
        names |= {f"{model}/{item}": members for model, members in _models(design, slugs).items()}
    return names


def _save_one(item: str, name: str, slugs: Sequence[str]) -> list[Path]:
    import matplotlib.pyplot

    data = figure_data(item, slugs)
    figure = _design(item).compose(data)
    files = save_figure(figure, name, data)
    matplotlib.pyplot.close(figure)
    return files


def with_results(item: str, slugs: Sequence[str]) -> list[str]:
    """Return the models that have results of a figure; all of them where it needs none."""
    source = _design(item).source
    return [slug for slug in slugs if not source or result_path(slug, source).is_file()]


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Draw one figure or all, and tell which files were made."""
    import matplotlib

    # Files are all it makes, so that a machine without a display serves as well.
    matplotlib.use("Agg")
    parser = argparse.ArgumentParser(prog="python -m llmva.paper.figures", description="Draw figures from results/.")
    parser.add_argument("item", help=f"{', '.join(FIGURES)}, or all: every figure that has results")
    parser.add_argument("--models", nargs="+", help="slugs; default: the organisms of papermill_params/")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each organism, where they have results")
    parser.add_argument("--present", action="store_true", help="leave out models without results, and say which")
    options = parser.parse_args(arguments)
    slugs = options.models or _default_models(options.item)
    shown = {}
    for item in _items_with_results(slugs) if options.item == "all" else [options.item]:
        lenient = options.present or options.item == "all"
        own = names.leave_out(item, slugs, with_results(item, slugs)) if lenient else slugs
        shown[item] = add_seeds(item, own, options.seeds)
    for item, files in _save_side_by_side(shown):
        studies = f" of {len(shown[item])} studies" * bool(_design(item).source)
        print(f"wrote {files[0].with_suffix('')}.pdf, .png, .csv{studies}, and {len(files) // 3 - 1} more figures")


def _save_side_by_side(shown: dict[str, list[str]]) -> Iterator[tuple[str, list[Path]]]:
    """Draw and write items, as many figures at once as there are cores where processes can be forked."""
    names = [
        (item, name, members) for item, slugs in shown.items() for name, members in _file_names(item, slugs).items()
    ]
    cores = min(os.cpu_count() or 1, len(names))
    if cores < 2 or sys.platform != "linux":
        yield from ((item, save_figures(item, slugs)) for item, slugs in shown.items())
        return
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("fork")) as pool:
        # Those of many models first, so that none of the long ones is left for the end.
        waiting = {name[1]: pool.submit(_save_one, *name) for name in sorted(names, key=lambda name: -len(name[2]))}
        for item in shown:
            yield item, [file for own, name, _ in names if own == item for file in waiting[name].result()]


def _design(item: str) -> Design:
    if item not in FIGURES:
        raise InputError(f"{item}: unknown figure; known are {', '.join(FIGURES)} (or all)")
    return FIGURES[item]


def _models(design: Design, slugs: Sequence[str]) -> dict[str, list[str]]:
    """Return the slugs that each model of a figure is made of."""
    return group_seeds(slugs) if design.averaged else {slug: [slug] for slug in slugs}


def _default_models(item: str) -> list[str]:
    organisms = [slug for slug in known_slugs() if is_organism(slug)]
    return ["tiny-llama"] if item in FIGURES and FIGURES[item].most == 1 else organisms


def _items_with_results(slugs: Sequence[str]) -> list[str]:
    # One model's results are enough to start a figure.
    shared = {name: design for name, design in FIGURES.items() if name not in APART}
    items = [name for name, design in shared.items() if design.source and _has_results(design, slugs)]
    if not items:
        raise InputError(f"{paths.RESULTS}: no figure's results for {', '.join(slugs)}; run `make figure9` first")
    return [name for name, design in shared.items() if name in items or not design.source]


def _has_results(design: Design, slugs: Sequence[str]) -> bool:
    present = [slug for slug in slugs if result_path(slug, design.source).is_file()]
    if not design.optional:
        return bool(present)
    return bool(present) and not design.tidy(read_long(design.source, present, averaged=False)).empty


def _rendered(figure: "Figure", suffix: str, metadata: dict) -> bytes:
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf

    # `savefig` would draw everything once more, for a layout that is found already.
    stream, shown = BytesIO(), (figure.canvas, figure.dpi)
    figure.dpi = rcParams["savefig.dpi"]
    if suffix == "pdf":
        FigureCanvasPdf(figure).print_pdf(stream, metadata=metadata)
    else:
        FigureCanvasAgg(figure).print_png(stream, metadata=metadata)
    figure.set_canvas(shown[0])
    figure.dpi = shown[1]
    return stream.getvalue()
