"""The tracked result files `results/<slug>/<item>.csv`, in long format: one number a row."""

from collections.abc import Sequence
from pathlib import Path

import pandas

from llmva.core import paths
from llmva.core.errors import InputError

COLUMNS = ("model", "method", "dataset", "metric", "value", "n", "seed")
SORTED_BY = ["model", "method", "dataset", "metric", "seed"]


def write_results(slug: str, item: str, frame: pandas.DataFrame) -> Path:
    """Write an item's results of one model; an unchanged file is left alone, its time too.

    Parameters
    ----------
    slug, item : str
        The model, and the display item (`table2`, `figure9`).
    frame : DataFrame
        The columns of `COLUMNS`; `model` may be left out, since it is the slug. Rows are sorted,
        and rows that share a key keep their order.

    Returns
    -------
    Path
        The file.
    """
    path = result_path(slug, item)
    checked = _checked(frame if "model" in frame else frame.assign(model=slug), slug, str(path))
    ordered = checked.sort_values(SORTED_BY, kind="stable")
    paths.write_atomically(path, ordered.to_csv(index=False, lineterminator="\n"))
    return path


def read_results(item: str, slugs: Sequence[str]) -> pandas.DataFrame:
    """Return an item's results of several models, in the order of the slugs.

    Raises
    ------
    InputError
        When a model's file is missing: an item never drops a model in silence.
    """
    if not slugs:
        raise InputError(f"{item}: no model is named; name some, as in `make {item} MODELS=tiny-llama`")
    return pandas.concat([_read(item, slug) for slug in slugs], ignore_index=True)


def result_path(slug: str, item: str) -> Path:
    """Return where an item's results of one model are."""
    return paths.RESULTS / slug / f"{item}.csv"


def is_organism(slug: str) -> bool:
    """Tell a model organism from a real model, by its slug."""
    return slug.startswith("tiny-")


def _read(item: str, slug: str) -> pandas.DataFrame:
    path = result_path(slug, item)
    fix = f"run `make {item} MODELS={slug}`"
    if not path.is_file():
        raise InputError(f"{path}: missing; {fix}")
    try:
        # Older parsers of pandas are off by a unit in the last place now and then; Python's is exact.
        frame = pandas.read_csv(path, dtype=dict.fromkeys(("model", "method", "dataset", "metric", "value"), str))
        frame["value"] = frame["value"].astype(float)
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: not readable as results ({str(error).splitlines()[0]}); {fix}") from None
    return _checked(frame, slug, str(path))


def _checked(frame: pandas.DataFrame, slug: str, source: str) -> pandas.DataFrame:
    if set(frame.columns) != set(COLUMNS):
        found = ", ".join(map(str, frame.columns))
        raise InputError(f"{source}: columns are {found}; they must be {', '.join(COLUMNS)}")
    if frame.empty:
        raise InputError(f"{source}: no rows in it; run `make {Path(source).stem} MODELS={slug}`")
    others = frame.loc[frame["model"] != slug, "model"]
    if len(others):
        raise InputError(f"{source}: model: is {others.iloc[0]!r}; it must be {slug!r}, the folder's name")
    for name in ("value", "n", "seed"):
        if not pandas.api.types.is_numeric_dtype(frame[name]):
            raise InputError(f"{source}: {name}: not all numbers; fix that column")
    return frame.loc[:, list(COLUMNS)].astype({"value": float, "n": int, "seed": int})
