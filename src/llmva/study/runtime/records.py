"""The tracked results of a study of run-time steering, `results/<slug>/runtime*.csv`: notebook 12 writes them."""

from pathlib import Path

import numpy
import pandas
from scipy.stats import bootstrap

from llmva.core.paths import write_texts
from llmva.core.provenance import random_generator
from llmva.core.results import write_results
from llmva.core.store import Stage
from llmva.measures.coherence import coherence
from llmva.measures.intervals import BOOTSTRAP_RESAMPLES, CONFIDENCE, wilson_interval
from llmva.prompts.threats import ALIGNED
from llmva.study.runtime.study import RuntimeStudy
from llmva.study.runtime.sweep import CONTROLS, read_cells
from llmva.study.runtime.testing import read_points

CELL_KEYS = ["threat", "position", "layer", "alpha"]


def record_all(
    study: RuntimeStudy, swept: dict[str, Stage], tested: dict[str, Stage], conversed: dict[str, Stage]
) -> pandas.DataFrame:
    """Write all results of a study; return those of the tests, one row per cell."""
    record_sweeps(study, swept)
    record_turns(study, conversed)
    return record_tests(study, tested)


def finish_runtime(study: RuntimeStudy, tested: dict[str, Stage], conversed: dict[str, Stage]) -> Stage:
    """Mark notebook 12 as finished: `responses.csv`, all test replies with what was made of them."""

    def compute(folder: Path) -> None:
        tables = [_read(stage / "responses.csv").assign(threat=threat) for threat, stage in tested.items()]
        write_texts(folder / "responses.csv", pandas.concat(tables))

    upstream = [*tested.values(), *conversed.values()]
    return study.stage("12_runtime_steering", compute, version=1, upstream=upstream)


def record_tests(study: RuntimeStudy, tested: dict[str, Stage]) -> pandas.DataFrame:
    """Write every test row of every threat with n and intervals (`runtime.csv`); return it, one row per cell.

    Parameters
    ----------
    tested : dict of str to Stage
        By threat, as `measure_points` returns them.
    """
    tables = [describe_tests(study, threat, stage) for threat, stage in tested.items()]
    table = pandas.concat(tables, ignore_index=True)
    write(study, "runtime", table, "test")
    return table


def record_sweeps(study: RuntimeStudy, swept: dict[str, Stage]) -> pandas.DataFrame:
    """Write what was tried on validation (`runtime_sweep.csv`): trait, coherence and repetition of every cell."""
    tables = []
    for threat, stage in swept.items():
        cells = read_cells(stage)
        n = int((study.threats[threat].scenarios["split"] == "validation").sum())
        tables.append(name_rows(cells).assign(threat=threat, n=n))
    table = pandas.concat(tables, ignore_index=True)
    write(study, "runtime_sweep", table, "validation")
    return table


def record_turns(study: RuntimeStudy, conversed: dict[str, Stage]) -> pandas.DataFrame:
    """Write trait and repetition by turn (`runtime_turns.csv`): means over the conversations."""
    tables = []
    for threat, stage in conversed.items():
        turns = _scored(_read(stage / "turns.csv")).groupby(["row", "position", "turn"], sort=False)
        means = turns[["trait", "within", "across"]].mean()
        tables.append(means.assign(n=turns.size(), threat=threat).reset_index().rename(columns={"row": "method"}))
    table = pandas.concat(tables, ignore_index=True)
    write(study, "runtime_turns", table, "test")
    return table


def write(study: RuntimeStudy, item: str, table: pandas.DataFrame, dataset: str) -> None:
    """Write a table with one row per method and keys as long results; numbers that are missing are left out."""
    keys = [name for name in ("method", *CELL_KEYS, "turn", "n") if name in table]
    long = table.melt(keys, var_name="metric").dropna(subset="value")
    write_results(study.params.slug, item, long.assign(dataset=dataset, seed=study.params.seed))


def name_rows(cells: pandas.DataFrame) -> pandas.DataFrame:
    """Return cells with their method's name in print, which holds the control."""
    controls = cells["control"].map(CONTROLS)
    return cells.assign(method=cells["method"] + (" (" + controls + ")").fillna("")).drop(columns="control")


def describe_tests(study: RuntimeStudy, threat: str, tested: Stage) -> pandas.DataFrame:
    """Return the test rows of one threat with n and intervals, one row per cell."""
    said, solved = _scored(_read(tested / "responses.csv")), _read(tested / "tasks.csv")
    tokens = _read(tested / "tokens.csv").set_index(["row", "position"])
    points = {(point.row, point.position): point for point in read_points(tested)}
    aligned = said[said["row"] == ALIGNED]
    before = solved[solved["row"] == ALIGNED].groupby("task")["right"].mean()
    rows = []
    for (row, position), group in said.groupby(["row", "position"], sort=False):
        point, key = points.get((row, position)), (row, position)
        measured = _measured(study, threat, group, aligned["loss"].to_numpy())
        rows.append({"threat": threat, "method": row, "position": position, **measured})
        if point is not None:
            own = solved[(solved["row"] == row) & (solved["position"] == position)]
            kept = (own.groupby("task")["right"].mean() / before).mean()
            rows[-1] |= {"layer": point.layer, "alpha": point.alpha, "kept": kept, **tokens.loc[key].to_dict()}
        elif row == ALIGNED:
            # Of a model that is left alone all is kept, and nothing is moved.
            rows[-1] |= {"kept": 1.0}
    return pandas.DataFrame(rows)


def _measured(study: RuntimeStudy, threat: str, said: pandas.DataFrame, aligned: numpy.ndarray) -> dict[str, float]:
    losses = said["loss"].to_numpy()
    names = (threat, said["row"].iloc[0], said["position"].iloc[0])
    return {
        "n": len(said),
        **_judged(study, "trait", said["trait"], names),
        **(_judged(study, "language", said["language"], names) if "language" in said else {}),
        "coherence": coherence(losses, aligned),
        **_bounds("coherence", (losses, aligned), lambda a, b, axis=-1: numpy.exp(b.mean(axis) - a.mean(axis)),
                  random_generator(study.params.seed, "runtime", "coherence", *names)),
        "repetition": said["repetition"].mean(),
        **_bounds("repetition", (said["repetition"].to_numpy(),), lambda a, axis=-1: a.mean(axis),
                  random_generator(study.params.seed, "runtime", "repetition", *names)),
    }  # fmt: skip


def _judged(study: RuntimeStudy, name: str, scores: pandas.Series, names: tuple[str, ...]) -> dict[str, float]:
    """Return the mean of what a judge said with its interval, Wilson's of 0 and 1 and a bootstrap's of other shares.

    `<name>_unparsed` is the share of replies on which the judge said nothing that could be read; they are left out.
    """
    judged = scores.dropna().to_numpy()
    unparsed = {f"{name}_unparsed": 1 - len(judged) / len(scores)} if len(judged) < len(scores) else {}
    bounds = {}
    if numpy.isin(judged, (0, 1)).all():
        low, high, _ = wilson_interval(int(judged.sum()), len(judged))
        bounds = {f"{name}_low": low, f"{name}_high": high}
    elif len(judged) > 1:
        generator = random_generator(study.params.seed, "runtime", name, *names)
        bounds = _bounds(name, (judged,), lambda a, axis=-1: a.mean(axis), generator)
    return {name: judged.mean() if len(judged) else numpy.nan, **bounds, **unparsed}


def _bounds(name: str, samples: tuple, statistic, generator: numpy.random.Generator) -> dict[str, float]:
    """Return a percentile bootstrap over scenarios: what is compared was said to the same ones."""
    options = {"paired": True, "vectorized": True, "method": "percentile", "confidence_level": CONFIDENCE}
    found = bootstrap(samples, statistic, n_resamples=BOOTSTRAP_RESAMPLES, rng=generator, **options)
    low, high = found.confidence_interval
    return {f"{name}_low": float(low), f"{name}_high": float(high)}


def _scored(table: pandas.DataFrame) -> pandas.DataFrame:
    # A score that could not be read is an empty cell, which would make texts of the others.
    names = [name for name in ("trait", "language") if name in table]
    return table.assign(**{name: pandas.to_numeric(table[name], errors="coerce") for name in names})


def _read(path: Path) -> pandas.DataFrame:
    return pandas.read_csv(path, keep_default_na=False)
