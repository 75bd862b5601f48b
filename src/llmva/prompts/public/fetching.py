"""Raw rows of a public set: released with their splits, from a local folder, or from the hub at a pinned revision."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from llmva.core.errors import InputError, first_line
from llmva.core.paths import find_in_package
from llmva.core.progress import library_bars
from llmva.core.provenance import digest, file_digest
from llmva.prompts.files import read_rows, reading
from llmva.prompts.public.catalogue import GATED_FIX, HUB_PAGES, DataSet, Hub

FOLDER_VARIABLE = "LLMVA_DATA"
# As LLM-VA's released files are named, and as we say it.
RELEASED_SPLITS = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Fetched:
    """Raw rows and where they came from.

    Attributes
    ----------
    origin : str
        A file, or `<id>/<config>/<split>@<revision>`.
    digest : str
        Of the file, or of the rows from the hub.
    """

    rows: list[dict]
    origin: str
    digest: str


def local_folder() -> Path | None:
    """Return the folder that `LLMVA_DATA` names, if it is set."""
    value = os.environ.get(FOLDER_VARIABLE)
    if value and not Path(value).is_dir():
        fix = "name the folder that holds the data sets' folders"
        raise InputError(f"{FOLDER_VARIABLE}: {value}: no such folder; {fix}")
    return Path(value) if value else None


def fetch(name: str, data_set: DataSet, folder: Path | None, *, neutral: bool = False) -> Fetched:
    """Return a set's raw rows, or a task's neutral ones: files below the folder, of an installed package, of the hub.

    Raises
    ------
    InputError
        When neither has the set; says where to get it, and for a gated set which step to take.
    """
    hub, files = (data_set.neutral, data_set.neutral_files) if neutral else (data_set.hub, data_set.files)
    for pattern in files if folder else ():
        if paths := sorted(path for path in folder.glob(pattern) if path.is_file()):
            # MMLU has a file per subject; of other sets, several files are copies.
            return _from_files(data_set, paths if name == "mmlu" else paths[:1], folder / pattern)
    if data_set.package and (path := find_in_package(data_set.package)) and path.is_file():
        return Fetched(_read_seeds(path), f"package:{data_set.package}", file_digest(path))
    wanted = f"${FOLDER_VARIABLE}/{files[0]}"
    if hub is None:
        raise InputError(f"{name}: not on the hub; get it from {data_set.home} and put it at {wanted}")
    return _from_hub(name, hub, wanted, single=data_set.neutral is None)


def require_released(folder: Path, names: Sequence[str]) -> None:
    """Raise an `InputError` unless a folder has a released split file of one of these sets: another one is a slip."""
    if not any(True for name in names for _ in folder.glob(f"{name}_*")):
        wrong = "none of LLM-VA's released split files" if folder.is_dir() else "no such folder"
        raise InputError(f"{folder}: {wrong}; name the folder that holds {names[0]}_train.csv, or leave RELEASED out")


def read_released(folder: Path, name: str) -> Fetched | None:
    """Return a set's rows with their `split`, or None where LLM-VA's released split files have none of it.

    CSV files have one column `input`; JSON files hold `{"query": ...}`. Both have the same texts.

    Raises
    ------
    InputError
        When only some of the three files are there.
    """
    candidates = {part: [folder / f"{name}_{part}.{suffix}" for suffix in ("csv", "json")] for part in RELEASED_SPLITS}
    files = {part: next(filter(Path.is_file, paths), None) for part, paths in candidates.items()}
    if not any(files.values()):
        return None
    for part, path in files.items():
        if path is None:
            raise InputError(f"{folder}: no {name}_{part}.csv beside the set's other files; fetch it too")
    rows = [{**row, "split": RELEASED_SPLITS[part]} for part, path in files.items() for row in read_rows(path)]
    return Fetched(rows, f"{folder}/{name}_*", digest([file_digest(path) for path in files.values()]))


def _from_files(data_set: DataSet, paths: list[Path], pattern: Path) -> Fetched:
    rows = [row for path in paths for row in data_set.read(path)]
    if len(paths) == 1:
        return Fetched(rows, str(paths[0]), file_digest(paths[0]))
    return Fetched(rows, str(pattern), digest([file_digest(path) for path in paths]))


def _read_seeds(path: Path) -> list[dict]:
    """Return the rows of a file of PyRIT's: YAML with a prompt for each of `seeds`."""
    with reading(path, "cannot be read", "install its package again"):
        try:
            return [{"prompt": seed["value"]} for seed in yaml.safe_load(path.read_text(encoding="utf-8"))["seeds"]]
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise ValueError(first_line(error)) from None


def _from_hub(name: str, hub: Hub, wanted: str, *, single: bool) -> Fetched:
    import datasets  # slow to import
    from huggingface_hub import HfApi, hf_hub_download

    split = hub.split
    try:
        # Without a revision of ours, the newest is taken, but by its commit, so that the manifest can name it.
        revision = hub.revision or HfApi().dataset_info(hub.id).sha
        if hub.file:
            path = hf_hub_download(hub.id, hub.file, repo_type="dataset", revision=revision)
            return Fetched(read_rows(Path(path)), f"{hub.id}/{hub.file}@{revision}", file_digest(path))
        with library_bars():
            splits = datasets.load_dataset(hub.id, hub.config, revision=revision)
        # Of prompts in a single split, copies disagree on what to call it; tasks need two.
        split = next(iter(splits)) if len(splits) == 1 and single else split
        if split not in splits:
            raise ValueError(f"no split {split}, only {', '.join(splits)}")
        rows = splits[split].to_list()
    except Exception as error:
        # The libraries' own errors, for no network, no such set and a closed gate, are of many kinds.
        fix = GATED_FIX.format(page=HUB_PAGES + hub.id, file=wanted) if hub.gated else f"or put it at {wanted}"
        raise InputError(f"{name}: {_address(hub, split)}: cannot be fetched ({first_line(error)}); {fix}") from None
    return Fetched(rows, f"{_address(hub, split)}@{revision}", digest(rows))


def _address(hub: Hub, split: str) -> str:
    return "/".join(filter(None, (hub.id, hub.config, split)))
