"""Figures from `results/` alone: PDF without a date, PNG, and the plotted data as CSV.

`python -m llmva.paper.figures figure9 --models tiny-llama tiny-qwen2` draws one figure over the models
and one for each; `python -m llmva.paper.figures all` draws every figure that has results. With
`--seeds 3`, the organisms' seeds `-s1` and `-s2` join in where they have results, as a mean.
"""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path

import matplotlib
import pandas
from matplotlib import pyplot
from matplotlib.figure import Figure

from llmva.core import paths
from llmva.core.errors import InputError, command
from llmva.core.parallel import count_processes, process_pool
from llmva.core.results import remake, result_path, world_of
from llmva.paper import names
from llmva.paper.display import group_pretrained, split_worlds
from llmva.paper.figures.catalogue import FIGURES, Design
from llmva.paper.figures.style import paper_style
from llmva.paper.figures.tidying import read_long

# Dates and version strings would change the bytes from run to run and machine to machine.
LEFT_OUT = {"pdf": ["CreationDate", "Creator", "Producer"], "png": ["Software"]}


def draw_figure(item: str, slugs: Sequence[str] = ()) -> Figure:
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
    return _draw(item, figure_data(item, slugs))


def figure_data(item: str, slugs: Sequence[str] = ()) -> pandas.DataFrame:
    """Return the tidy data that a figure shows; arguments and errors as for `draw_figure`.

    Where seeds are averaged, the column `seeds` has their number.
    """
    design = FIGURES[item]
    if not design.sources:
        return design.tidy(None)
    models, (source,) = dict(list(_models(design, slugs).items())[: design.most]), design.sources
    if design.means and len({world_of(model) for model in models}) > 1:
        raise InputError(f"{item}: --models: models of different kinds have no common mean; name one kind")
    shown = [slug for members in models.values() for slug in members]
    data = design.tidy(read_long(source, shown, averaged=design.averaged))
    for model, members in models.items():
        if model not in set(data["model"]):
            fix = f"run {remake(source, members[0])}"
            raise InputError(f"{result_path(members[0], source)}: nothing that {item} draws; {fix}")
    if design.averaged:
        data = data.assign(seeds=data["model"].map(lambda model: len(models[model])))
    order = list(models)
    return data.sort_values("model", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def add_seeds(item: str, slugs: Sequence[str], seeds: int) -> list[str]:
    """Return the slugs, each organism followed by its seeds `-s1` and on that have results for a figure.

    Where a figure shows no means over seeds, none are added.
    """
    design = FIGURES[item]
    wanted = names.add_seeds(slugs, seeds if design.averaged else 1)
    return [slug for slug in wanted if slug in slugs or design.with_results([slug])]


def save_figure(figure: Figure, name: str, data: pandas.DataFrame) -> list[Path]:
    """Write `figures/<name>.pdf`, `.png` and `.csv`, the same bytes for the same data."""
    files = {suffix: paths.FIGURES / f"{name}.{suffix}" for suffix in (*LEFT_OUT, "csv")}
    with paper_style():
        # The layout is found once and serves both formats.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for suffix, names_left_out in LEFT_OUT.items():
            stream = BytesIO()
            figure.savefig(stream, format=suffix, metadata=dict.fromkeys(names_left_out))
            paths.write_atomically(files[suffix], stream.getvalue())
    paths.write_atomically(files["csv"], data.to_csv(index=False, lineterminator="\n"))
    return list(files.values())


def save_figures(item: str, slugs: Sequence[str] = ()) -> list[Path]:
    """Draw and write an item: over all models, and for each model in a folder of its own.

    A figure that shows means over models is drawn for real models and organisms apart, as
    `<item>` and `<item>_organisms`, where both are named. A pretrained model's figures are in its folder alone.
    """
    # Files are all it makes, so that a machine without a display serves as well.
    matplotlib.use("Agg")
    files = []
    for name, shown in file_names(item, slugs).items():
        data = figure_data(item, shown)
        figure = _draw(item, data)
        files += save_figure(figure, name, data)
        pyplot.close(figure)
    return files


def file_names(item: str, slugs: Sequence[str]) -> dict[str, list[str]]:
    """Return the figures that an item is written as, `figure9` and `tiny-llama/figure9`, each with its slugs."""
    design = FIGURES[item]
    # A figure that no model's results are in is one for all.
    pretrained = group_pretrained(slugs) if design.sources else {}
    others = [slug for slug in slugs if slug not in sum(pretrained.values(), [])]
    shown = {}
    if others or not pretrained:
        shown = split_worlds(item, others) if design.means else {item: others}
        if design.single and design.most is None:
            shown |= {f"{model}/{item}": members for model, members in _models(design, others).items()}
    return shown | {f"{model}/{item}": members for model, members in pretrained.items()}


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Draw one figure or all, and tell which files were made."""
    options = FIGURES.read_options(arguments)
    chosen = {item: add_seeds(item, slugs, options.seeds) for item, slugs in FIGURES.choose(options, options.models)}
    processes = min(count_processes(), len(chosen))
    with process_pool(processes) if processes > 1 else nullcontext() as pool:
        _tell(chosen, (map if pool is None else pool.map)(save_figures, chosen, chosen.values()))


def _tell(chosen: dict[str, list[str]], made: Iterable[list[Path]]) -> None:
    for (item, slugs), files in zip(chosen.items(), made, strict=True):
        studies = f" of {len(slugs)} studies" * bool(FIGURES[item].sources)
        print(f"wrote {files[0].with_suffix('')}.pdf, .png, .csv{studies}, and {len(files) // 3 - 1} more figures")


def _draw(item: str, data: pandas.DataFrame) -> Figure:
    with paper_style():
        return FIGURES[item].draw(data)


def _models(design: Design, slugs: Sequence[str]) -> dict[str, list[str]]:
    """Return the slugs that each model of a figure is made of."""
    names_of = names.name_models(slugs) if design.averaged else {slug: slug for slug in slugs}
    return {model: [slug for slug in slugs if names_of[slug] == model] for model in names_of.values()}
