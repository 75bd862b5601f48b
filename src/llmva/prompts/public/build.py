"""Build the folder that a study reads from public sets: prompts with labels and base prompts, tasks, and a manifest."""

import json
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas

from llmva.core.errors import InputError
from llmva.core.paths import write_texts
from llmva.core.provenance import random_generator
from llmva.core.store import require_writable
from llmva.prompts.public.catalogue import SETS, DataSet
from llmva.prompts.public.fetching import VARIABLE, Fetched, fetch
from llmva.prompts.public.grouping import find_bases, fold
from llmva.prompts.public.released import read_released

MANIFEST = "manifest.json"
# Whose prompts others were built around: S-Eval's attacks, and a fifth of ORFuzzSet around AdvBench's goals.
BASES = {"seval_attack": "seval_risk", "orfuzzset": "advbench"}
# Of each task: rows that are measured, and rows whose replies are held still.
TEST_ROWS, NEUTRAL_ROWS = 400, 60


class MissingSetsError(InputError):
    """Sets that cannot be had: the one bad input with a line for each of several mistakes."""


def build_folder(
    target: Path,
    *,
    folder: Path | None = None,
    released: Path | None = None,
    only: Sequence[str] = tuple(SETS),
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
) -> dict:
    """Write `safety/`, `transfer/` and `utility/` with one CSV per set, and `manifest.json`; all or nothing.

    Parameters
    ----------
    target : Path
        Must not be there yet.
    folder : Path, optional
        Local files, in the folders that `catalogue` names; sets without files there come from the hub.
    released : Path, optional
        LLM-VA's released split files: safety sets that have files there come with their own splits.
    only : sequence of str
        The sets to build.
    seed : int
        Of the draw of task rows.
    report : callable
        Takes a line on each set: rows, origin, licence.

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
    unknown = sorted(set(only) - set(SETS))
    if unknown:
        raise InputError(f"{', '.join(unknown)}: unknown as a data set; known are {', '.join(SETS)}")
    if target.exists():
        raise InputError(f"{target}: exists already; remove it or name another folder")
    require_writable(target)
    tables, manifest, missing = {}, {}, []
    for name in only:
        try:
            table, fetched = _read(name, SETS[name], folder, released, seed)
        except InputError as error:
            missing.append(str(error))
            continue
        tables[name] = table
        manifest[name] = {"rows": len(table), **_provenance(SETS[name], fetched)}
        report(f"{name}: {len(table)} rows from {fetched[0].origin}; licence: {SETS[name].licence}")
    if missing:
        raise MissingSetsError(_tell(missing, len(only), folder))
    _group_by_base(tables)
    if count := _count_divided(tables):
        report(f"{count} base prompts stand in two of the given splits, in other words or inside an attack: a leak")
    for name, count in _count_seen(tables).items():
        manifest[name]["base_prompts_of_unseen_sets"] = count
        report(f"{name}: {count} base prompts stand in unseen sets too, which are not wholly unseen then")
    _write(target, tables, manifest)
    return manifest


def _read(
    name: str, data_set: DataSet, folder: Path | None, released: Path | None, seed: int
) -> tuple[pandas.DataFrame, list[Fetched]]:
    if data_set.part == "safety" and released is not None and (found := read_released(released, name)):
        return _prompts(name, data_set, found.rows), [found]
    fetched = [fetch(name, data_set, folder, hub=data_set.hub, files=data_set.files)]
    if data_set.part != "utility":
        return _prompts(name, data_set, fetched[0].rows), fetched
    fetched.append(fetch(name, data_set, folder, hub=data_set.neutral, files=data_set.neutral_files))
    parts = zip(fetched, ("test", "neutral"), (TEST_ROWS, NEUTRAL_ROWS), strict=True)
    return pandas.concat([_tasks(name, data_set, part.rows, *rest, seed) for part, *rest in parts]), fetched


def _tell(missing: list[str], asked: int, folder: Path | None) -> str:
    # Who is told of a place below it should know how to name one.
    unset = folder is None and any(f"${VARIABLE}" in line for line in missing)
    fix = f"{VARIABLE} is not set; with files of your own, write `{VARIABLE}=<their folder> make data`"
    if len(missing) == 1:
        return missing[0] + (f" ({fix})" if unset else "")
    head = f"{len(missing)} of {asked} sets cannot be had, and nothing was written:"
    return "\n".join([head, *(f"  {line}" for line in missing), *([fix] if unset else [])])


def _prompts(name: str, data_set: DataSet, rows: list[dict]) -> pandas.DataFrame:
    parsed = _parsed(name, data_set, rows)
    table = pandas.DataFrame(parsed, columns=["prompt", "label"])
    if "split" in rows[0]:
        table["split"] = [row["split"] for row in rows]
    table["prompt"] = table["prompt"].str.strip()
    return table[table["prompt"] != ""].drop_duplicates("prompt").reset_index(drop=True)


def _tasks(name: str, data_set: DataSet, rows: list[dict], split: str, most: int, seed: int) -> pandas.DataFrame:
    table = pandas.DataFrame(_parsed(name, data_set, rows), columns=["prompt", "answer"]).drop_duplicates("prompt")
    draws = random_generator(seed, "tasks", name, split)
    picks = sorted(draws.choice(len(table), min(most, len(table)), replace=False))
    return table.iloc[picks].assign(split=split)


def _parsed(name: str, data_set: DataSet, rows: list[dict]) -> list[tuple]:
    try:
        found = [parsed for row in rows if (parsed := data_set.parse(row)) is not None]
    except (KeyError, TypeError, AttributeError) as error:
        columns = ", ".join(map(str, rows[0])) if isinstance(rows[0], dict) else type(rows[0]).__name__
        raise InputError(f"{name}: no {error} in its rows (found: {columns}); fetch the set from its home") from None
    if not found:
        raise InputError(f"{name}: none of its {len(rows)} rows has a label that is known; fetch it from its home")
    return found


def _group_by_base(tables: dict[str, pandas.DataFrame]) -> None:
    for name, table in tables.items():
        if SETS[name].part != "utility":
            bases = tables[BASES[name]]["prompt"].tolist() if BASES.get(name) in tables else []
            found = find_bases(table["prompt"].tolist(), bases) if bases else table["prompt"]
            table["group"] = [fold(base) for base in found]


def _count_divided(tables: dict[str, pandas.DataFrame]) -> int:
    given = [
        table[["group", "split"]] for name, table in tables.items() if SETS[name].part == "safety" and "split" in table
    ]
    return int((pandas.concat(given).groupby("group")["split"].nunique() > 1).sum()) if given else 0


def _count_seen(tables: dict[str, pandas.DataFrame]) -> dict[str, int]:
    unseen = {group for name, table in tables.items() if SETS[name].part == "transfer" for group in table["group"]}
    shared = {name: unseen & set(table["group"]) for name, table in tables.items() if SETS[name].part == "safety"}
    return {name: len(groups) for name, groups in shared.items() if groups}


def _provenance(data_set: DataSet, fetched: list[Fetched]) -> dict:
    return {
        "origin": [part.origin for part in fetched],
        "sha256": [part.digest for part in fetched],
        "licence": data_set.licence,
        "home": data_set.home,
    }


def _write(target: Path, tables: dict[str, pandas.DataFrame], manifest: dict) -> None:
    place = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        for name, table in tables.items():
            path = place / SETS[name].part / f"{name}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_texts(path, table)
        (place / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        place.rename(target)
    finally:
        shutil.rmtree(place, ignore_errors=True)
