"""Prompt sets: the files and folders that people bring, read and checked."""

from collections.abc import Sequence
from pathlib import Path

import pandas

from llmva.core.errors import InputError
from llmva.core.paths import anchored
from llmva.core.provenance import digest
from llmva.core.vocabulary import (
    LABELS,
    PRETRAINED_SETS,
    PRETRAINED_UNSEEN_SETS,
    SAFETY_SETS,
    SPLITS,
    TRANSFER_SETS,
)
from llmva.prompts.files import decode, parse_csv, read_rows, reading, require_columns, require_texts, shortened

MIN_PROMPTS = 10
# Read as CSV; other files are of the format that their suffix says.
PLAIN_SUFFIXES = (".csv", ".txt", "")
# No prompt that a model can read is longer, in characters.
MAX_PROMPT = 500_000
# Words that stand for something else where results say which set they are of.
RESERVED_SETS = ("all", "strict")


def read_prompts(path: str | Path, dataset: str | None = None) -> pandas.DataFrame:
    """Read prompts from a file with `prompt` and `label`, optionally `dataset`, `group`, `split` and `category`.

    It may be CSV, TSV, JSON (an array, or an object a line), JSONL or Parquet, also gzipped or zipped.

    Returns
    -------
    DataFrame
        Columns id, dataset, label, group, prompt; duplicates of a prompt within a set removed. Without
        a `dataset` the label names the set; without a `group` each prompt is its own. A row may leave
        either empty. Where the file gives a `split`, or a `category` (the kind of harm, or of anything else), so does
        the table.

    Raises
    ------
    InputError
        Names the file, the column and the fix.
    """
    path = Path(path)
    table = _read_table(path)
    require_columns(table, ("prompt", "label"), path)
    _check_prompts(table, path)
    table["label"] = [str(label).strip().lower() for label in table["label"]]
    _check_words(table, "label", LABELS, path, fix=f"write {' or '.join(LABELS)}")
    _require_one_label(table, path)
    if "split" in table:
        table["split"] = table["split"].fillna("").astype(str)
        _check_words(table, "split", ("", *SPLITS), path, fix=f"write {', '.join(SPLITS)}, or nothing")
    table["dataset"] = dataset or _filled(table, "dataset", table["label"])
    if reserved := sorted(set(table["dataset"]) & set(RESERVED_SETS)):
        raise InputError(f"{path}: dataset: {reserved[0]!r} means something else in results; give the set another name")
    table["group"] = _filled(table, "group", table["prompt"])
    table["id"] = [prompt_id(name, prompt) for name, prompt in zip(table["dataset"], table["prompt"], strict=True)]
    if "category" in table:
        table["category"] = table["category"].fillna("").astype(str).str.strip()
    columns = ["id", "dataset", "label", "group", "prompt", *(name for name in ("split", "category") if name in table)]
    return table.drop_duplicates("id")[columns].astype(str).reset_index(drop=True)


def _require_one_label(table: pandas.DataFrame, path: Path) -> None:
    """Raise an `InputError` where the same prompt is benign in one row and toxic in another."""
    rows = pandas.DataFrame({"text": table["prompt"].str.strip(), "label": table["label"]}).reset_index(drop=True)
    first = rows.groupby("text")["label"].transform("first")
    if (other := (rows["label"] != first).to_numpy()).any():
        second = int(other.argmax())
        one = int((rows["text"] == rows["text"][second]).to_numpy().argmax())
        raise InputError(
            f"{path}: label: data rows {one + 1} and {second + 1} have the same prompt and other labels; remove one"
        )


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


def known_sets(folder: Path) -> dict[str, dict[str, str]]:
    """Return the sets that `safety/` and `transfer/` of a data folder may have, with their labels.

    They are those of a pretrained model where `safety/` has one that the paper's studies do not sample.
    """
    others = [folder / "safety" / f"{name}.csv" for name in PRETRAINED_SETS if name not in SAFETY_SETS]
    if any(path.is_file() for path in others):
        return {"safety": PRETRAINED_SETS, "transfer": PRETRAINED_UNSEEN_SETS}
    return {"safety": SAFETY_SETS, "transfer": TRANSFER_SETS}


def list_missing_sets(source: str | Path) -> list[str]:
    """Return the files of prompts that a data folder goes without; none where the data are one file."""
    folder = anchored(source)
    parts = known_sets(folder) if folder.is_dir() else {}
    return [
        f"{part}/{name}.csv"
        for part, known in parts.items()
        for name in known
        if name not in find_sets(folder / part, known)
    ]


def read_candidates(source: str | Path) -> pandas.DataFrame:
    """Read candidate prompts from one file, or those of `safety/<dataset>.csv` that a data folder has.

    Raises
    ------
    InputError
        As `read_prompts`; and when a folder has no prompts of one label: names the sets that are missing.
    """
    path = anchored(source)
    if not path.is_dir():
        return read_prompts(path)
    folder, known = path / "safety", known_sets(path)["safety"]
    names = find_sets(folder, known)
    tables = [read_prompts(folder / f"{name}.csv", name) for name in names]
    labels = {label for table in tables for label in table["label"]}
    if absent := [label for label in LABELS if label not in labels]:
        missing = ", ".join(f"{name}.csv" for name in known if name not in names)
        fix = f"add some of {missing}, as `make data` makes them" if missing else f"add some to {names[0]}.csv"
        raise InputError(f"{folder}: no {absent[0]} prompts; {fix}")
    return pandas.concat(tables, ignore_index=True)


def require_two_classes(prompts: pandas.DataFrame, source: str) -> None:
    """Raise an `InputError` unless a table has enough rows to split and both labels."""
    if len(prompts) < MIN_PROMPTS:
        raise InputError(f"{source}: {len(prompts)} prompts; at least {MIN_PROMPTS} are needed to split 8:1:1")
    for label in LABELS:
        count = prompts.loc[prompts["label"] == label, "group"].nunique()
        if count < len(SPLITS):
            raise InputError(f"{source}: label: {count} groups of {label} prompts; add at least {len(SPLITS)}")


def require_every_split(prompts: pandas.DataFrame, source: str) -> None:
    """Raise an `InputError` unless both labels have prompts to learn from, to choose by and to test on."""
    for split in SPLITS:
        for label in LABELS:
            if not (prompts["split"].eq(split) & prompts["label"].eq(label)).any():
                raise InputError(
                    f"{source}: split: no {label} prompts are left for {split}; add some, raise --candidates, or leave "
                    "the column `split` out where there is one"
                )


def prompt_id(dataset: str, prompt: str) -> str:
    """Return a prompt's identity: its set and the digest of its text."""
    return f"{dataset}-{digest(prompt)[:12]}"


def _read_table(path: Path) -> pandas.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a CSV, JSON, JSONL or Parquet file with columns prompt and label")
    if path.suffix.lower() in PLAIN_SUFFIXES:
        with reading(path, "cannot be parsed", "fix that line"):
            text = decode(path.read_bytes())
            if not text.strip():
                raise InputError(f"{path}: is empty; it needs columns prompt and label")
            return parse_csv(text)
    return pandas.DataFrame(read_rows(path, fix="fix that line", spreadsheet=True), dtype=object)


def _check_prompts(table: pandas.DataFrame, path: Path) -> None:
    require_texts(table, ("prompt",), path)
    for number, prompt in enumerate(table["prompt"], start=1):
        if not prompt.strip():
            raise InputError(f"{path}: prompt: empty in data row {number}; fill or remove that row")
        if len(prompt) > MAX_PROMPT:
            size = f"{len(prompt):,} characters in data row {number}"
            raise InputError(f"{path}: prompt: {size}, of {MAX_PROMPT:,} that are allowed; shorten or remove that row")


def _check_words(table: pandas.DataFrame, column: str, words: Sequence[str], path: Path, *, fix: str) -> None:
    for number, word in enumerate(table[column], start=1):
        if word not in words:
            raise InputError(f"{path}: {column}: {shortened(repr(word))} in data row {number}; {fix}")


def _filled(table: pandas.DataFrame, column: str, default: pandas.Series) -> pandas.Series:
    if column not in table:
        return default
    values = table[column].fillna("").astype(str)
    return values.where(values.str.strip() != "", default)
