"""Raw rows of a public set: from a local folder where its files are, else from the hub at a pinned revision."""

import os
from dataclasses import dataclass
from pathlib import Path

from llmva.core.errors import InputError
from llmva.core.progress import library_bars
from llmva.core.provenance import digest, file_digest
from llmva.prompts.public.catalogue import GATED, DataSet, Hub
from llmva.prompts.public.files import read_rows

VARIABLE = "LLMVA_DATA"


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
    value = os.environ.get(VARIABLE)
    if not value:
        return None
    if not Path(value).is_dir():
        raise InputError(f"{VARIABLE}: {value}: no such folder; name the folder that holds the data sets' folders")
    return Path(value)


def fetch(name: str, data_set: DataSet, folder: Path | None, *, hub: Hub | None, files: tuple[str, ...]) -> Fetched:
    """Return a set's raw rows; files below the folder go before the hub.

    Raises
    ------
    InputError
        When neither has the set; says where to get it, and for a gated set which step to take.
    """
    for pattern in files if folder else ():
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        if found:
            return Fetched(read_rows(found[0], data_set.columns), str(found[0]), file_digest(found[0]))
    if hub is None:
        raise InputError(f"{name}: not on the hub; get it from {data_set.home} and put it at {_place(files)}")
    return _from_hub(name, hub, files, single=data_set.neutral is None)


def _from_hub(name: str, hub: Hub, files: tuple[str, ...], *, single: bool) -> Fetched:
    import datasets  # slow to import
    from huggingface_hub import HfApi

    where = "/".join(filter(None, (hub.id, hub.config, hub.split)))
    try:
        # Without a revision of ours, the newest is taken, but by its commit, so that the manifest can name it.
        revision = hub.revision or HfApi().dataset_info(hub.id).sha
        with library_bars():
            found = datasets.load_dataset(hub.id, hub.config, revision=revision)
        # Of prompts in a single split, copies disagree on what to call it; tasks need two.
        split = next(iter(found)) if len(found) == 1 and single else hub.split
        where = "/".join(filter(None, (hub.id, hub.config, split)))
        if split not in found:
            raise ValueError(f"no split {split}, only {', '.join(found)}")
        found = found[split].to_list()
    except Exception as error:
        # The libraries' own errors, for no network, no such set and a closed gate, are of many kinds.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        fix = GATED.format(id=hub.id, file=_place(files)) if hub.gated else f"or put it at {_place(files)}"
        raise InputError(f"{name}: {where}: cannot be fetched ({reason}); {fix}") from None
    return Fetched(found, f"{where}@{revision}", digest(found))


def _place(files: tuple[str, ...]) -> str:
    return f"${VARIABLE}/{files[0]}"
