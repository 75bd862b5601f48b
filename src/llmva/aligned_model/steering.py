"""What `make steer` leaves: a direction in a file, a report, and the lines that apply it."""

from pathlib import Path

import numpy
import pandas
import yaml

from llmva import __version__
from llmva.aligned_model.drawing import draw_axes, draw_svg
from llmva.aligned_model.report import TEMPLATES
from llmva.core.errors import InputError
from llmva.core.paths import write_atomically
from llmva.core.store import Stage, run_stage
from llmva.core.vocabulary import RUNTIME_METHODS
from llmva.models.gguf_files import describe_gguf
from llmva.models.sources import split_source
from llmva.prompts.threats import ALIGNED, MALICIOUS, PAIRS
from llmva.steering.runtime.control_vector import export_control_vector
from llmva.steering.runtime.saved import save_steering
from llmva.study.runtime import RuntimeStudy
from llmva.study.runtime.learning import learn_boundaries, read_boundaries
from llmva.study.runtime.records import describe_tests
from llmva.study.runtime.sweep import Cell, find_sound, read_cells, sweep_threat
from llmva.study.runtime.testing import measure_points, read_points

FOLDER_VERSION = 2
DIRECTION, CONTROL_VECTOR = "direction.safetensors", "control_vector.gguf"
WORDS = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))["steering"]


def write_steering(study: RuntimeStudy, out: Path, method: str) -> Stage:
    """Fit, sweep, choose and test a method on pairs of system prompts, and write the folder.

    Returns
    -------
    Stage
        `out` with `direction.safetensors`, `report.html`, `README.md`, `cells.csv` (all that was tried),
        `manifest.json`, and, of SwFC, `control_vector.gguf` for llama.cpp.
    """
    tested, swept = measure_points(study, PAIRS), sweep_threat(study, PAIRS)
    point = next(point for point in read_points(tested) if (point.row, point.position) == (method, "all"))
    steering = point.steering(PAIRS, read_boundaries(learn_boundaries(study)))

    def compute(folder: Path) -> dict:
        name, revision = split_source(study.params.model)
        base = {"model": name, "revision": revision, "key": study.model_key}
        save_steering(folder / DIRECTION, steering, base, study.chat_model)
        if exported := _export(study, folder, steering):
            exported = WORDS["exported"][exported]
        cells = read_cells(swept)
        cells.to_csv(folder / "cells.csv", index=False)
        _write_report(folder, study, point, describe_tests(study, PAIRS, tested), cells, exported)
        return {
            "study": study.params.model_dump(),
            "point": vars(point),
            **({} if study.held else describe_gguf(study.params.model)),
        }

    parameters = {"method": method, "model": study.params.model}
    return run_stage(out, compute, parameters=parameters, upstream=(tested, swept), version=FOLDER_VERSION)


def _export(study: RuntimeStudy, folder: Path, steering) -> str:
    if steering.method != "SwFC":
        return "gated"
    if steering.layer < 2:
        return "first_layer"
    config = study.chat_model.model.config.get_text_config()
    export_control_vector(folder / CONTROL_VECTOR, steering, architecture=config.model_type, width=config.hidden_size)
    return "written"


def _write_report(
    folder: Path, study: RuntimeStudy, point: Cell, table: pandas.DataFrame, cells: pandas.DataFrame, exported: str
) -> None:
    base, revision = split_source(study.params.model)
    rows = table.set_index(["method", "position"])
    before, after, aligned = rows.loc[(MALICIOUS, "")], rows.loc[(point.method, "all")], rows.loc[(ALIGNED, "")]
    gap = aligned["trait"] - before["trait"]
    recovered = (after["trait"] - before["trait"]) / gap if gap > 0 else numpy.nan
    parts = {
        "name": Path(base).name,
        "base": base if revision else "",
        "revision": revision,
        "version": __version__,
        "params": study.params,
        "point": point,
        "chosen": _say_how_chosen(study, point, cells),
        "replies": Path("runs", study.params.slug, "12_tests", PAIRS, "responses.csv"),
        "verdict": _verdict(before, after, aligned, recovered),
        "rates": _rates(table),
        "map_plot": _draw_map(cells, point),
        "frontier_plot": _draw_frontier(cells),
        "exported": exported,
        "n": int(after["n"]),
    }
    for name, template in {"report.html": "steering.html", "README.md": "steering.md"}.items():
        write_atomically(folder / name, TEMPLATES.get_template(template).render(parts) + "\n")


def _say_how_chosen(study: RuntimeStudy, point: Cell, cells: pandas.DataFrame) -> str:
    own = (cells[list(vars(point))] == pandas.Series(vars(point))).all(axis=1)
    kind = "sound" if find_sound(study, cells)[own].all() else "stand_in"
    return WORDS["chosen"][kind].format(coherence=study.params.min_coherence, repetition=study.params.max_repetition)


def _verdict(before: pandas.Series, after: pandas.Series, aligned: pandas.Series, recovered: float) -> str:
    if not aligned["trait_low"] > before["trait_high"]:
        return WORDS["verdict"]["no_gap"].format(before=100 * before["trait"], aligned=100 * aligned["trait"])
    kind = "recovered" if after["trait_low"] > before["trait_high"] else "unclear"
    values = {"before": 100 * before["trait"], "after": 100 * after["trait"], "aligned": 100 * aligned["trait"]}
    return WORDS["verdict"][kind].format(**values, recovered=100 * recovered)


def _rates(table: pandas.DataFrame) -> pandas.DataFrame:
    shown = table[table["position"].isin(["", "all"])]
    trait = [f"{row.trait:.2f} [{row.trait_low:.2f}, {row.trait_high:.2f}]" for row in shown.itertuples()]
    columns = {"": shown["method"], "trait": trait}
    for name, title in WORDS["columns"].items():
        columns[title] = shown[name].round(3) if name in shown else numpy.nan
    return pandas.DataFrame(columns)


def _draw_map(cells: pandas.DataFrame, point: Cell) -> str:
    own = cells[(cells["method"] == point.method) & (cells["position"] == "all") & (cells["control"] == "")]
    grid = own.pivot(index="layer", columns="alpha", values="trait")
    figure, axes = draw_axes()
    image = axes.pcolormesh(range(len(grid.columns) + 1), [*grid.index, grid.index[-1] + 1], grid, vmin=0, vmax=1)
    axes.set_xticks([place + 0.5 for place in range(len(grid.columns))], [f"{alpha:g}" for alpha in grid.columns])
    axes.set_xlabel("alpha")
    axes.set_ylabel("layer")
    axes.plot(list(grid.columns).index(point.alpha) + 0.5, point.layer + 0.5, "o", color="white", label="chosen")
    figure.colorbar(image, label="trait")
    return draw_svg(figure, "The trait by layer and strength on validation prompts; cells.csv has the numbers")


def _draw_frontier(cells: pandas.DataFrame) -> str:
    figure, axes = draw_axes()
    shown = cells[(cells["position"] == "all") & (cells["control"] == "")]
    for method, rows in shown.groupby("method", sort=False):
        axes.plot(rows["coherence"], rows["trait"], "o", markersize=3, alpha=0.6, label=method)
    axes.set_xlabel("coherence")
    axes.set_ylabel("trait")
    return draw_svg(figure, "Trait and coherence of all settings on validation prompts; cells.csv has the numbers")


def require_method(method: str) -> str:
    """Return a method's name as it is written, whatever its case; or raise an `InputError`."""
    names = {name.lower(): name for name in RUNTIME_METHODS}
    if str(method).lower() not in names:
        raise InputError(f"method: is {method!r}; choose one of {', '.join(names.values())}")
    return names[method.lower()]
