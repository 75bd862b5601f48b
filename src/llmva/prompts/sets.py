"""Prompt sets: reading, identifying, splitting by group, and per-model pools with errors first."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas

from llmva.core.errors import InputError
from llmva.core.paths import anchored
from llmva.core.provenance import digest
from llmva.core.vocabulary import LABELS, SAFETY_SETS, SPLITS, TRANSFER_SETS

MIN_ROWS = 10


def read_prompts(path: str | Path, dataset: str | None = None) -> pandas.DataFrame:
    """Read prompts from a CSV or JSONL file with `prompt` and `label`, optionally `dataset`, `group` and `split`.

    Returns
    -------
    DataFrame
        Columns id, dataset, label, group, prompt; duplicates of a prompt within a set removed. Without
        a `dataset` the label names the set; without a `group` each prompt is its own. A row may leave
        either empty. Where the file gives a `split`, so does the table.

    Raises
    ------
    InputError
        Names the file, the column and the fix.
    """
    path = Path(path)
    table = _read_table(path)
    for column in ("prompt", "label"):
        if column not in table:
            raise InputError(f"{path}: no column {column!r}; add it (columns found: {', '.join(map(str, table))})")
    _check_values(table, path)
    _check_splits(table, path)
    table["dataset"] = dataset or _filled(table, "dataset", table["label"])
    table["group"] = _filled(table, "group", table["prompt"])
    table["id"] = [prompt_id(name, prompt) for name, prompt in zip(table["dataset"], table["prompt"], strict=True)]
    columns = ["id", "dataset", "label", "group", "prompt", *(["split"] if "split" in table else [])]
    return table.drop_duplicates("id")[columns].astype(str).reset_index(drop=True)


def read_safety_sets(folder: str | Path) -> pandas.DataFrame:
    """Read those of `safety/<dataset>.csv` that a data folder has into one table, as `read_prompts` does.

    Raises
    ------
    InputError
        When there are none, or one label has no prompts: names the sets that are missing.
    """
    place = Path(folder) / "safety"
    names = find_sets(place, SAFETY_SETS)
    tables = [read_prompts(place / f"{name}.csv", name) for name in names]
    labels = {label for table in tables for label in table["label"]}
    if absent := [label for label in LABELS if label not in labels]:
        missing = ", ".join(f"{name}.csv" for name in SAFETY_SETS if name not in names)
        fix = f"add some of {missing}, as `make data` makes them" if missing else f"add some to {names[0]}.csv"
        raise InputError(f"{place}: no {absent[0]} prompts; {fix}")
    return pandas.concat(tables, ignore_index=True)


def find_sets(folder: Path, known: Sequence[str]) -> list[str]:
    """Return the known sets that a folder has as `<set>.csv`, in their order.

    Raises
    ------
    InputError
        When a CSV has another name: a set would be left out for a slip of the pen.
    """
    there = {path.stem for path in folder.glob("*.csv") if not path.name.startswith(".")}
    if strangers := sorted(there - set(known)):
        fix = f"rename it to one of {', '.join(known)}, or remove it"
        raise InputError(f"{folder}/{strangers[0]}.csv: no known set; {fix}")
    return [name for name in known if name in there]


def list_missing_sets(source: str | Path) -> list[str]:
    """Return the files of prompts that a data folder goes without; none where the data are one file."""
    place = anchored(source)
    parts = {"safety": SAFETY_SETS, "transfer": TRANSFER_SETS} if place.is_dir() else {}
    return [
        f"{part}/{name}.csv"
        for part, known in parts.items()
        for name in known
        if name not in find_sets(place / part, known)
    ]


def read_candidates(source: str | Path) -> pandas.DataFrame:
    """Read candidate prompts from a data folder with `safety/`, or from one CSV or JSONL file."""
    path = anchored(source)
    return read_safety_sets(path) if path.is_dir() else read_prompts(path)


def require_two_classes(prompts: pandas.DataFrame, source: str) -> None:
    """Raise an `InputError` unless a table has enough rows to split and both labels."""
    if len(prompts) < MIN_ROWS:
        raise InputError(f"{source}: {len(prompts)} prompts; at least {MIN_ROWS} are needed to split 8:1:1")
    for label in LABELS:
        count = prompts.loc[prompts["label"] == label, "group"].nunique()
        if count < len(SPLITS):
            raise InputError(f"{source}: label: {count} groups of {label} prompts; add at least {len(SPLITS)}")


def prompt_id(dataset: str, prompt: str) -> str:
    """Return a prompt's identity: its set and the digest of its text."""
    return f"{dataset}-{digest(prompt)[:12]}"


def _read_table(path: Path) -> pandas.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a CSV or JSONL file with columns prompt and label")
    try:
        # Spreadsheets begin UTF-8 with a byte-order mark, which `utf-8-sig` leaves out.
        text = path.read_text(encoding="utf-8-sig")
        if not text.strip():
            raise InputError(f"{path}: is empty; it needs columns prompt and label")
        return _read_jsonl(text) if path.suffix in {".jsonl", ".ndjson"} else _read_csv(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save it again as UTF-8") from None
    except (ValueError, pandas.errors.ParserWarning) as error:
        raise InputError(f"{path}: cannot be parsed ({str(error).splitlines()[0]}); fix that line") from None


def _read_csv(path: Path) -> pandas.DataFrame:
    with warnings.catch_warnings():
        # An unquoted comma would otherwise cut a prompt in two without a word.
        warnings.simplefilter("error", pandas.errors.ParserWarning)
        # "None" or "NA" can be a prompt: nothing is turned into a missing value.
        return pandas.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)


def _read_jsonl(text: str) -> pandas.DataFrame:
    # Not splitlines: a JSON string may hold other line separators of Unicode.
    lines = enumerate(text.split("\n"), start=1)
    return pandas.DataFrame([_read_object(line, number) for number, line in lines if line.strip()], dtype=object)


def _read_object(line: str, number: int) -> dict:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"line {number}: not a JSON object")
    return row


def _filled(table: pandas.DataFrame, column: str, default: pandas.Series) -> pandas.Series:
    if column not in table:
        return default
    given = table[column].fillna("").astype(str)
    return given.where(given.str.strip() != "", default)


def _check_values(table: pandas.DataFrame, path: Path) -> None:
    empty = ~table["prompt"].map(lambda prompt: isinstance(prompt, str) and bool(prompt.strip()))
    if empty.any():
        raise InputError(f"{path}: prompt: empty in data row {empty.to_numpy().argmax() + 1}; fill or remove that row")
    table["label"] = [str(label).strip().lower() for label in table["label"]]
    other = ~table["label"].isin(LABELS)
    if other.any():
        row = other.to_numpy().argmax()
        raise InputError(f"{path}: label: {table['label'].iloc[row]!r} in data row {row + 1}; write benign or toxic")


def _check_splits(table: pandas.DataFrame, path: Path) -> None:
    if "split" not in table:
        return
    table["split"] = table["split"].fillna("").astype(str)
    other = ~table["split"].isin(["", *SPLITS])
    if other.any():
        row = other.to_numpy().argmax()
        raise InputError(
            f"{path}: split: {table['split'].iloc[row]!r} in data row {row + 1}; write {', '.join(SPLITS)}, or nothing"
        )
