"""Build the folder that a study reads from public sets: prompts with labels and base prompts, tasks, and a manifest."""

import json
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas

from llmva.core.errors import InputError, first_line
from llmva.core.paths import write_texts
from llmva.core.provenance import random_generator
from llmva.core.store import MANIFEST, require_writable
from llmva.prompts.public.catalogue import KNOWN_SETS, PUBLIC_SETS, DataSet
from llmva.prompts.public.fetching import FOLDER_VARIABLE, Fetched, fetch, read_released, require_released
from llmva.prompts.public.grouping import find_bases, fold
from llmva.prompts.public.runtime_sets import COLUMNS, finish_table

# Whose prompts others were built around: S-Eval's attacks, and a fifth of ORFuzzSet around AdvBench's goals.
BASE_SETS = {"seval_attack": "seval_risk", "orfuzzset": "advbench"}
# A task has rows that are measured, and rows whose replies are held still.
TEST_ROWS, NEUTRAL_ROWS = 400, 60


class MissingSetsError(InputError):
    """Sets that cannot be had: the one bad input with a line for each of several mistakes."""

    has_lines = True


def build_folder(
    target: Path,
    *,
    folder: Path | None = None,
    released: Path | None = None,
    only: Sequence[str] = tuple(PUBLIC_SETS),
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> dict:
    """Write one CSV per set to `safety/`, `transfer/`, `utility/` and `runtime/`, and `manifest.json`; all or nothing.

    Parameters
    ----------
    target : Path
        Must not be there yet.
    folder, released, only, seed, report
        See `read_sets`; by default the sets are those of LLM-VA's paper, and none of `runtime/`.

    Returns
    -------
    dict
        The manifest: by set its rows, origin, digest, licence and home.

    Raises
    ------
    InputError
        When a set is unknown, or the target exists.
    MissingSetsError
        When sets cannot be had, after all were tried.
    """
    if target.exists():
        raise InputError(f"{target}: exists already; remove it or name another folder")
    require_writable(target)
    safety = [name for name in only if name in KNOWN_SETS and KNOWN_SETS[name].part == "safety"]
    if released is not None and safety:
        require_released(released, safety)
    tables, manifest = read_sets(only, folder=folder, released=released, seed=seed, report=report)
    if count := _count_divided(tables):
        report(f"{count} base prompts stand in two of the given splits, in other words or inside an attack: a leak")
    for name, count in _count_seen(tables).items():
        manifest[name]["base_prompts_of_unseen_sets"] = count
        report(f"{name}: {count} base prompts stand in unseen sets too, which are not wholly unseen then")
    _write(target, tables, manifest)
    return manifest


def read_sets(
    names: Sequence[str],
    *,
    folder: Path | None = None,
    released: Path | None = None,
    seed: int = 0,
    missing_allowed: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, pandas.DataFrame], dict]:
    """Return public sets by name, prompts with their base prompts as `group`, and what the manifest says of each.

    Parameters
    ----------
    names : sequence of str
        The sets.
    folder : Path, optional
        Local files, in the folders that `catalogue` names; sets without files there come from the hub.
    released : Path, optional
        LLM-VA's released split files: safety sets that have files there come with their own splits.
    seed : int
        Of the draw of task rows.
    missing_allowed : bool
        Whether sets that cannot be had are reported and left out.
    report : callable
        Takes a line on each set: rows, origin, licence.

    Raises
    ------
    InputError
        When a set is unknown.
    MissingSetsError
        When sets cannot be had, after all were tried; where they may be missing, when none can be had.
    """
    unknown = sorted(set(names) - set(KNOWN_SETS))
    if unknown:
        raise InputError(f"{', '.join(unknown)}: unknown as a data set; known are {', '.join(KNOWN_SETS)}")
    tables, manifest, missing = {}, {}, []
    for name in names:
        try:
            table, sources = _read(name, KNOWN_SETS[name], folder, released, seed)
        except InputError as error:
            missing.append(str(error))
            continue
        tables[name], manifest[name] = table, _provenance(KNOWN_SETS[name], table, sources)
        report(f"{name}: {len(table)} rows from {sources[0].origin}; licence: {KNOWN_SETS[name].licence}")
    if missing and not (missing_allowed and tables):
        raise MissingSetsError(_list_missing(missing, len(names), folder))
    for line in missing:
        report(f"left out: {line}")
    _group_by_base(tables)
    return tables, manifest


def _read(
    name: str, data_set: DataSet, folder: Path | None, released: Path | None, seed: int
) -> tuple[pandas.DataFrame, list[Fetched]]:
    if data_set.part == "safety" and released is not None and (source := read_released(released, name)):
        return _prompt_table(name, data_set, source.rows), [source]
    source = fetch(name, data_set, folder)
    if data_set.part == "runtime":
        table = _parse(name, data_set, source.rows, *COLUMNS[name])
        return finish_table(name, table, TEST_ROWS, seed), [source]
    if data_set.part != "utility":
        return _prompt_table(name, data_set, source.rows), [source]
    neutral = fetch(name, data_set, folder, neutral=True)
    parts = {"test": (source, TEST_ROWS), "neutral": (neutral, NEUTRAL_ROWS)}
    tables = []
    for split, (part, maximum) in parts.items():
        table = _parse(name, data_set, part.rows, "prompt", "answer").drop_duplicates("prompt")
        draws = random_generator(seed, "tasks", name, split)
        picks = sorted(draws.choice(len(table), min(maximum, len(table)), replace=False))
        tables.append(table.iloc[picks].assign(split=split))
    return pandas.concat(tables), [source, neutral]


def _prompt_table(name: str, data_set: DataSet, rows: list[dict]) -> pandas.DataFrame:
    table = _parse(name, data_set, rows, "prompt", "label")
    if "split" in rows[0]:
        table["split"] = [row["split"] for row in rows]
    table["prompt"] = table["prompt"].str.strip()
    return table[table["prompt"] != ""].drop_duplicates("prompt").reset_index(drop=True)


def _parse(name: str, data_set: DataSet, rows: list[dict], *columns: str) -> pandas.DataFrame:
    parsed, fix = [], "fetch the set from its home"
    for number, row in enumerate(rows, start=1):
        try:
            values = data_set.parse(row)
        except KeyError as error:
            found = ", ".join(map(str, row))
            raise InputError(f"{name}: no {error} in its rows (found: {found}); {fix}") from None
        except (TypeError, AttributeError, ValueError) as error:
            raise InputError(f"{name}: row {number} of its rows cannot be read ({first_line(error)}); {fix}") from None
        if values is None:
            continue
        if strange := [column for column, value in zip(columns, values, strict=True) if not _is_plain(value)]:
            raise InputError(f"{name}: row {number} of its rows: {strange[0]}: is no text; {fix}")
        parsed.append(values)
    if not parsed:
        raise InputError(f"{name}: none of its {len(rows)} rows has a label that is known; fetch it from its home")
    return pandas.DataFrame(parsed, columns=list(columns))


def _is_plain(value: object) -> bool:
    """Tell whether a parsed value is a text, or the number or the list of texts that a conversation has."""
    return isinstance(value, str | int) or (isinstance(value, list) and all(isinstance(part, str) for part in value))


def _provenance(data_set: DataSet, table: pandas.DataFrame, sources: list[Fetched]) -> dict:
    return {
        "rows": len(table),
        "origin": [source.origin for source in sources],
        "sha256": [source.digest for source in sources],
        "licence": data_set.licence,
        "home": data_set.home,
    }


def _list_missing(missing: list[str], asked: int, folder: Path | None) -> str:
    # An error may name a file below the variable's folder, and then says how to set it.
    unset = folder is None and any(f"${FOLDER_VARIABLE}" in line for line in missing)
    fix = f"{FOLDER_VARIABLE} is not set; with files of your own, write `{FOLDER_VARIABLE}=<their folder> make data`"
    if len(missing) == 1:
        return missing[0] + (f" ({fix})" if unset else "")
    head = f"{len(missing)} of {asked} sets cannot be had, and nothing was written:"
    return "\n".join([head, *(f"  {line}" for line in missing), *([fix] if unset else [])])


def _of_part(tables: dict[str, pandas.DataFrame], part: str) -> dict[str, pandas.DataFrame]:
    return {name: table for name, table in tables.items() if KNOWN_SETS[name].part == part}


def _group_by_base(tables: dict[str, pandas.DataFrame]) -> None:
    for name, table in (_of_part(tables, "safety") | _of_part(tables, "transfer")).items():
        around = tables.get(BASE_SETS.get(name))
        bases = table["prompt"] if around is None else find_bases(table["prompt"], around["prompt"])
        table["group"] = [fold(base) for base in bases]


def _count_divided(tables: dict[str, pandas.DataFrame]) -> int:
    split = [table for table in _of_part(tables, "safety").values() if "split" in table]
    return int((pandas.concat(split).groupby("group")["split"].nunique() > 1).sum()) if split else 0


def _count_seen(tables: dict[str, pandas.DataFrame]) -> dict[str, int]:
    unseen = {group for table in _of_part(tables, "transfer").values() for group in table["group"]}
    seen = {name: len(unseen & set(table["group"])) for name, table in _of_part(tables, "safety").items()}
    return {name: count for name, count in seen.items() if count}


def _write(target: Path, tables: dict[str, pandas.DataFrame], manifest: dict) -> None:
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        for name, table in tables.items():
            path = temporary / KNOWN_SETS[name].part / f"{name}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_texts(path, table)
        text = json.dumps(manifest, indent=1, ensure_ascii=False)
        (temporary / MANIFEST).write_text(f"{text}\n", encoding="utf-8")
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
