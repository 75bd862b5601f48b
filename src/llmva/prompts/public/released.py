"""The split files that LLM-VA's authors released: the texts of each safety set, in three files."""

from pathlib import Path

from llmva.core.errors import InputError
from llmva.core.provenance import digest, file_digest
from llmva.prompts.public.fetching import Fetched
from llmva.prompts.public.files import read_rows

# As the files are named, and as we say it.
OWN_SPLITS = {"train": "train", "val": "validation", "test": "test"}


def read_released(folder: Path, name: str) -> Fetched | None:
    """Return a set's rows with their `split`, or None where the folder has no file of it.

    CSV files have one column `input`; JSON files hold `{"query": ...}`. Both have the same texts.

    Raises
    ------
    InputError
        When only some of the three files are there.
    """
    files = {part: _file(folder, f"{name}_{part}") for part in OWN_SPLITS}
    if not any(files.values()):
        return None
    for part, path in files.items():
        if path is None:
            raise InputError(f"{folder}: no {name}_{part}.csv beside the set's other files; fetch it too")
    rows = [{**row, "split": OWN_SPLITS[part]} for part, path in files.items() for row in read_rows(path)]
    return Fetched(rows, f"{folder}/{name}_*", digest([file_digest(path) for path in files.values()]))


def _file(folder: Path, stem: str) -> Path | None:
    return next((path for suffix in (".csv", ".json") if (path := folder / f"{stem}{suffix}").is_file()), None)
