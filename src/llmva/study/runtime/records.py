"""The tracked results of a study of run-time steering, `results/<slug>/runtime*.csv`: notebook 12 writes them."""

from collections.abc import Callable, Iterator
from functools import partial
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

# From a number's name to the generator of its bootstrap.
Draws = Callable[[str], numpy.random.Generator]
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
    """Write trait and repetition by turn (`runtime_turns.csv`): means over the conversations, with intervals."""
    table = pandas.DataFrame([row for threat, stage in conversed.items() for row in _of_turns(study, threat, stage)])
    write(study, "runtime_turns", table, "test")
    return table


def write(study: RuntimeStudy, item: str, table: pandas.DataFrame, dataset: str) -> None:
    """Write a table with one row per method and keys as long results; numbers that are missing are left out.

    Columns `n_<metric>` hold the n of metrics, and of what begins with their names, that do not rest on `n`.
    """
    counts = [name for name in table if name.startswith("n_")]
    keys = [name for name in ("method", *CELL_KEYS, "turn", "n") if name in table]
    long = table.melt([*keys, *counts], var_name="metric").dropna(subset="value")
    for name in counts:
        its = long["metric"].str.startswith(name.removeprefix("n_")) & long[name].notna()
        long["n"] = long["n"].where(~its, long[name]).astype(int)
    long = long.drop(columns=counts)
    write_results(study.params.slug, item, long.assign(dataset=dataset, seed=study.params.seed))


def name_rows(cells: pandas.DataFrame) -> pandas.DataFrame:
    """Return cells with their method's name in print, which holds the control."""
    controls = cells["control"].map(CONTROLS)
    return cells.assign(method=cells["method"] + (" (" + controls + ")").fillna("")).drop(columns="control")


def describe_tests(study: RuntimeStudy, threat: str, tested: Stage) -> pandas.DataFrame:
    """Return the test rows of one threat, one per cell: every number with n and a 95 % interval."""
    names = ("responses", "tasks", "tokens", "divergence")
    said, solved, tokens, divergence = (_of_rows(_read(tested / f"{name}.csv")) for name in names)
    points = {(point.row, point.position): point for point in read_points(tested)}
    aligned = (ALIGNED, "")
    rows = []
    for key, group in said.items():
        draws = partial(random_generator, study.params.seed, "runtime", threat, *key)
        row = {"threat": threat, "method": key[0], "position": key[1]}
        row |= _of_replies(_scored(group), said[aligned]["loss"].to_numpy(), draws)
        if key in points:
            row |= {"layer": points[key].layer, "alpha": points[key].alpha}
            if aligned in solved:
                row |= {"n_kept": len(solved[key]), **_kept(solved[key], solved[aligned], draws("kept"))}
            row |= _of_tokens(tokens[key], draws)
            if key in divergence:
                row |= {"n_divergence": len(divergence[key])}
                row |= _mean("divergence", divergence[key]["divergence"], draws)
        elif key == aligned:
            # Of a model that is left alone all is kept, and nothing is moved.
            row |= {"kept": 1.0, "n_kept": len(solved[key])} if key in solved else {}
        rows.append(row)
    return pandas.DataFrame(rows)


def _of_turns(study: RuntimeStudy, threat: str, conversed: Stage) -> Iterator[dict]:
    turns = _scored(_read(conversed / "turns.csv"))
    for (method, position, turn), rows in turns.groupby(["row", "position", "turn"], sort=False):
        draws = partial(random_generator, study.params.seed, "runtime turns", threat, method, position, str(turn))
        keys = {"threat": threat, "method": method, "position": position, "turn": turn, "n": len(rows)}
        repeated = [_mean(name, rows[name], draws) for name in ("within", "across")]
        yield {**keys, **_judged("trait", rows["trait"], draws), **repeated[0], **repeated[1]}


def _of_rows(table: pandas.DataFrame) -> dict[tuple[str, str], pandas.DataFrame]:
    """Return a table's parts by row and position."""
    return dict(iter(table.groupby(["row", "position"], sort=False)))


def _of_replies(said: pandas.DataFrame, aligned: numpy.ndarray, draws: Draws) -> dict[str, float]:
    losses = said["loss"].to_numpy()

    def ratio(first: numpy.ndarray, second: numpy.ndarray, axis: int = -1) -> numpy.ndarray:
        return numpy.exp(second.mean(axis) - first.mean(axis))

    return {
        "n": len(said),
        **_judged("trait", said["trait"], draws),
        **(_judged("language", said["language"], draws) if "language" in said else {}),
        "coherence": coherence(losses, aligned),
        **_bounds("coherence", (losses, aligned), ratio, draws("coherence")),
        **_mean("repetition", said["repetition"], draws),
    }


def _of_tokens(tokens: pandas.DataFrame, draws: Draws) -> dict[str, float]:
    """Return the shares of tokens moved and mean shifts by kind of text; texts are resampled, not tokens."""

    def ratio(part: numpy.ndarray, whole: numpy.ndarray, axis: int = -1) -> numpy.ndarray:
        return part.sum(axis) / whole.sum(axis)

    found = {}
    # An empty reply has no token in its position.
    for text, rows in tokens[tokens["tokens"] > 0].groupby("text", sort=False):
        for name, column in (("moved", "moved"), ("shift", "distance")):
            samples = rows[column].to_numpy(), rows["tokens"].to_numpy()
            key = f"{name}_{text}"
            found |= {key: float(ratio(*samples)), **_bounds(key, samples, ratio, draws(key)), f"n_{key}": len(rows)}
    return found


def _kept(own: pandas.DataFrame, before: pandas.DataFrame, generator: numpy.random.Generator) -> dict[str, float]:
    """Return the mean over tasks of the share of solved prompts that is kept; prompts are resampled within tasks.

    A task of which the model solves nothing has no such share, and is left out; so is a resample of that kind.
    """
    values, drawn = [], []
    for task, rows in own.groupby("task", sort=False):
        after, first = rows["right"].to_numpy(), before.loc[before["task"] == task, "right"].to_numpy()
        picks = generator.integers(len(after), size=(BOOTSTRAP_RESAMPLES, len(after)))
        if first.any():
            values.append(after.mean() / first.mean())
            solved = first[picks].mean(1)
            drawn.append(numpy.where(solved > 0, after[picks].mean(1) / numpy.where(solved > 0, solved, 1), numpy.nan))
    if not values:
        return dict.fromkeys(("kept", "kept_low", "kept_high"), numpy.nan)
    low, high = numpy.nanquantile(numpy.mean(drawn, axis=0), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return {"kept": float(numpy.mean(values)), "kept_low": float(low), "kept_high": float(high)}


def _mean(name: str, values: pandas.Series, draws: Draws) -> dict[str, float]:
    samples = (values.to_numpy(float),)
    return {name: float(values.mean()), **_bounds(name, samples, lambda a, axis=-1: a.mean(axis), draws(name))}


def _judged(name: str, scores: pandas.Series, draws: Draws) -> dict[str, float]:
    """Return the mean of what a judge said with its interval, Wilson's of 0 and 1 and a bootstrap's of other shares.

    `<name>_unparsed` is the share of replies on which the judge said nothing that could be read; they are left out.
    """
    judged = scores.dropna().to_numpy()
    unparsed = {}
    if len(judged) < len(scores):
        unparsed = {f"{name}_unparsed": 1 - len(judged) / len(scores), f"n_{name}_unparsed": len(scores)}
    bounds = {}
    if numpy.isin(judged, (0, 1)).all():
        low, high, _ = wilson_interval(int(judged.sum()), len(judged))
        bounds = {f"{name}_low": low, f"{name}_high": high}
    else:
        bounds = _bounds(name, (judged,), lambda a, axis=-1: a.mean(axis), draws(name))
    return {name: judged.mean() if len(judged) else numpy.nan, f"n_{name}": len(judged), **bounds, **unparsed}


def _bounds(name: str, samples: tuple, statistic, generator: numpy.random.Generator) -> dict[str, float]:
    """Return a percentile bootstrap over scenarios, to which what is compared replied; none of a single scenario."""
    if len(samples[0]) < 2:
        return {}
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
