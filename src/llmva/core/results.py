"""The tracked result files `results/<slug>/<item>.csv`, in long format: one number a row.

Every row has the columns of `RESULT_COLUMNS`. An item may add key columns of `KEY_COLUMNS`, which tell rows of one
metric apart: the angle of a sublayer, the F1 of an iteration. A row without such a key leaves it empty.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas

from llmva.core import paths
from llmva.core.errors import InputError, first_line
from llmva.core.vocabulary import PRETRAINED_MODELS

RESULT_COLUMNS = ("model", "method", "dataset", "metric", "value", "n", "seed")
KEY_COLUMNS = {
    "sublayer": "str",
    "iteration": "Int64",
    "degrees": "Int64",
    "draw": "Int64",
    "l_select": "Int64",
    "trial": "Int64",
    "noise": "float",
    "id": "str",
    "group": "str",
    "verdict": "str",
    "first": "str",
    "second": "str",
    "benign_set": "str",
    "toxic_set": "str",
    "threat": "str",
    "position": "str",
    "layer": "Int64",
    "alpha": "float",
    "beta": "float",
    "turn": "Int64",
    "prompt": "str",
    "response": "str",
}


def write_results(slug: str, item: str, frame: pandas.DataFrame) -> Path:
    """Write an item's results of one model; an unchanged file is left alone, its time too.

    Parameters
    ----------
    slug, item : str
        The model, and the display item (`table2`, `figure9`).
    frame : DataFrame
        The columns of `RESULT_COLUMNS`, and key columns; `model` may be left out, since it is the slug. Rows are
        sorted, and rows that share all keys keep their order.

    Returns
    -------
    Path
        The file.
    """
    path = result_path(slug, item)
    checked = _checked(frame if "model" in frame else frame.assign(model=slug), slug, str(path))
    ordered = checked.sort_values([*RESULT_COLUMNS[:4], *_keys(checked), "seed"], kind="stable", na_position="first")
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


def remake(item: str, slug: str) -> str:
    """Return the command that makes an item's results of one model anew."""
    # The organisms of LLM-VA-R's own table are a list of their own.
    return f"`make {item} {'FRESH' if item == 'ridge' else 'MODELS'}={slug}`"


def world_of(slug: str) -> str:
    """Return the world of a model: `organisms`, `real`, or `pretrained` elsewhere and taught here to refuse.

    No table and no mean has models of two worlds.
    """
    if slug.startswith(("tiny-", "persona-")):
        return "organisms"
    return "pretrained" if slug.partition("-")[0] in PRETRAINED_MODELS else "real"


def is_organism(slug: str) -> bool:
    """Tell a model organism from other models, by its slug."""
    return world_of(slug) == "organisms"


def has_seeds(slug: str) -> bool:
    """Tell whether a model is made here from a seed, so that `<slug>-s1` is another one."""
    return world_of(slug) != "real"


def _read(item: str, slug: str) -> pandas.DataFrame:
    path = result_path(slug, item)
    fix = f"run {remake(item, slug)}"
    if not path.is_file():
        raise InputError(f"{path}: missing; {fix}")
    try:
        # Older parsers of pandas are off by a unit in the last place now and then; Python's is exact.
        frame = pandas.read_csv(path, dtype=dict.fromkeys(RESULT_COLUMNS[:5], str))
        frame["value"] = frame["value"].astype(float)
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: not readable as results ({first_line(error)}); {fix}") from None
    return _checked(frame, slug, str(path))


def _checked(frame: pandas.DataFrame, slug: str, source: str) -> pandas.DataFrame:
    keys = _keys(frame)
    if set(frame.columns) != {*RESULT_COLUMNS, *keys} or not frame.columns.is_unique:
        columns = ", ".join(map(str, frame.columns))
        raise InputError(
            f"{source}: columns are {columns}; they must be {', '.join(RESULT_COLUMNS)}, and keys of "
            f"{', '.join(KEY_COLUMNS)}"
        )
    if frame.empty:
        raise InputError(f"{source}: no rows in it; run {remake(Path(source).stem, slug)}")
    others = frame.loc[frame["model"] != slug, "model"]
    if len(others):
        raise InputError(f"{source}: model: is {others.iloc[0]!r}; it must be {slug!r}, the folder's name")
    for name in ("value", "n", "seed", *(key for key in keys if KEY_COLUMNS[key] != "str")):
        if not pandas.api.types.is_numeric_dtype(frame[name]) and frame[name].notna().any():
            raise InputError(f"{source}: {name}: not all numbers; correct that column")
    texts = {key: frame[key].fillna("") for key in keys if KEY_COLUMNS[key] == "str"}
    types = {"value": float, "n": int, "seed": int, **{key: KEY_COLUMNS[key] for key in keys}}
    return frame.loc[:, [*RESULT_COLUMNS[:4], *keys, *RESULT_COLUMNS[4:]]].assign(**texts).astype(types)


def _keys(frame: pandas.DataFrame) -> list[str]:
    return [key for key in KEY_COLUMNS if key in frame]
