"""Prompt sets: reading, identifying, splitting by group, and per-model pools with errors first."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy
import pandas

from llmva.core.errors import InputError
from llmva.core.paths import anchored
from llmva.core.provenance import digest, random_generator

SAFETY_SETS = ("seval_attack", "seval_risk", "orfuzzset", "nq")
TRANSFER_SETS = ("advbench", "orbench_toxic", "xstest_toxic", "orbench", "xstest")
LABELS = ("benign", "toxic")
SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}
COLUMNS = ["id", "dataset", "label", "group", "split", "prompt"]
FEWEST_ROWS = 10
ERROR_SHARE = 0.5


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
        Names the file, the column and the mend.
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
        mend = f"add some of {missing}, as `make data` makes them" if missing else f"add some to {names[0]}.csv"
        raise InputError(f"{place}: no {absent[0]} prompts; {mend}")
    return pandas.concat(tables, ignore_index=True)


def read_transfer_sets(source: str | Path, per_dataset: int, seed: int) -> pandas.DataFrame:
    """Draw at most `per_dataset` prompts of each `transfer/<dataset>.csv` that a data folder has; else no rows."""
    folder = anchored(source) / "transfer"
    sets = [read_prompts(folder / f"{name}.csv", name) for name in find_sets(folder, TRANSFER_SETS)]
    if not sets:
        return pandas.DataFrame(columns=["id", "dataset", "label", "group", "prompt"])
    return _draw(pandas.concat(sets, ignore_index=True), per_dataset, seed, "transfer")


def find_sets(folder: Path, known: Sequence[str]) -> list[str]:
    """Return the known sets that a folder has as `<set>.csv`, in their order.

    Raises
    ------
    InputError
        When a CSV has another name: a set would be left out for a slip of the pen.
    """
    there = {path.stem for path in folder.glob("*.csv") if not path.name.startswith(".")}
    if strangers := sorted(there - set(known)):
        mend = f"rename it to one of {', '.join(known)}, or remove it"
        raise InputError(f"{folder}/{strangers[0]}.csv: no known set; {mend}")
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
    if len(prompts) < FEWEST_ROWS:
        raise InputError(f"{source}: {len(prompts)} prompts; at least {FEWEST_ROWS} are needed to split 8:1:1")
    for label in LABELS:
        count = prompts.loc[prompts["label"] == label, "group"].nunique()
        if count < len(SPLITS):
            raise InputError(f"{source}: label: {count} groups of {label} prompts; add at least {len(SPLITS)}")


def prompt_id(dataset: str, prompt: str) -> str:
    """Return a prompt's identity: its set and the digest of its text."""
    return f"{dataset}-{digest(prompt)[:12]}"


def draw_candidates(prompts: pandas.DataFrame, per_dataset: int, seed: int) -> pandas.DataFrame:
    """Draw at most `per_dataset` prompts of each set, in the table's order."""
    return _draw(prompts, per_dataset, seed, "candidates")


def draw_sample(prompts: pandas.DataFrame, per_dataset: int, seed: int, iteration: int) -> pandas.DataFrame:
    """Draw an iteration's fresh training sample: at most `per_dataset` training prompts of each set."""
    return _draw(prompts[prompts["split"] == "train"], per_dataset, seed, "sample", iteration)


def assign_splits(prompts: pandas.DataFrame, seed: int) -> pandas.Series:
    """Return each prompt's split, 8:1:1, a group always on one side.

    Groups are shuffled and dealt within strata of equal labels, so that both labels reach every
    split even in a small table. Sets that came with splits of their own keep these, groups or not, and
    rows without one stand where the first of their group that has one stands.
    """
    dealt = _dealt(prompts, seed)
    if "split" not in prompts:
        return dealt
    given = prompts["split"].where(prompts["split"].fillna("") != "")
    return given.fillna(given.groupby(prompts["group"]).transform("first")).fillna(dealt)


def _dealt(prompts: pandas.DataFrame, seed: int) -> pandas.Series:
    strata = prompts.groupby("group", sort=True)["label"].agg(lambda labels: "+".join(sorted(set(labels))))
    split_of_group = {}
    for stratum, groups in strata.groupby(strata):
        names = random_generator(seed, "splits", stratum).permutation(groups.index.to_numpy())
        # A stratum too small to reach every split, as of groups with both labels, goes to training.
        held_out = max(1, round(SPLITS["test"] * len(names))) if len(names) >= len(SPLITS) else 0
        for position, name in enumerate(names):
            split_of_group[name] = _side(position, held_out)
    return prompts["group"].map(split_of_group)


def errors_first_pool(
    candidates: pandas.DataFrame, wrong: pandas.Series, *, size: int, error_share: Mapping[str, float], seed: int
) -> pandas.DataFrame:
    """Choose a model's pool: per set and split, its errors up to a share, then prompts it handles.

    Parameters
    ----------
    candidates : DataFrame
        Prompts with their `split`.
    wrong : Series of bool, indexed by id
        True where the original model errs (a jailbreak or an over-refusal).
    size : int
        Rows per set over all splits; a set with fewer candidates gives what it has.
    error_share : mapping
        Largest share of errors per set; half for sets not named. With errors alone, the two labels would
        be each other's opposite, and so would v_a and v_b.

    Returns
    -------
    DataFrame
        Columns as `COLUMNS`, sorted by set, split and id.
    """
    chosen = []
    for (dataset, split), rows in candidates.groupby(["dataset", "split"], sort=True):
        quota = round(SPLITS[split] * size)
        rows = rows.sort_values("id").sample(frac=1, random_state=random_generator(seed, "pool", dataset, split))
        is_wrong = wrong.reindex(rows["id"]).to_numpy(dtype=bool)
        errors = rows[is_wrong].head(round(quota * error_share.get(dataset, ERROR_SHARE)))
        chosen.append(pandas.concat([errors, rows[~is_wrong].head(quota - len(errors))]))
    pool = pandas.concat(chosen).sort_values(["dataset", "split", "id"])
    return pool[COLUMNS].reset_index(drop=True)


def describe_pool(pool: pandas.DataFrame) -> dict:
    """Return what a manifest records of a pool: rows per set and split, and a digest of each set's prompts."""
    counts = pool.groupby(["dataset", "split"]).size().unstack(fill_value=0)
    digests = {name: digest(sorted(rows["prompt"])) for name, rows in pool.groupby("dataset")}
    return {"rows": counts.to_dict("index"), "prompt_digests": digests}


def _draw(prompts: pandas.DataFrame, per_dataset: int, seed: int, *purpose) -> pandas.DataFrame:
    drawn = []
    for dataset, rows in prompts.groupby("dataset", sort=True):
        if len(rows) > per_dataset:
            picks = random_generator(seed, *purpose, dataset).choice(len(rows), per_dataset, replace=False)
            rows = rows.iloc[numpy.sort(picks)]
        drawn.append(rows)
    return pandas.concat(drawn, ignore_index=True)


def _side(position: int, held_out: int) -> str:
    if position < held_out:
        return "test"
    return "validation" if position < 2 * held_out else "train"


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
        raise InputError(f"{path}: cannot be parsed ({str(error).splitlines()[0]}); mend that line") from None


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
