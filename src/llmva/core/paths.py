"""Paths anchored at the repository's root, and writes that are all or nothing.

Where the package was installed without a repository, `runs/` and the rest lie in the working folder, and the notebooks
and parameter files are those in the package. `LLMVA_ROOT` names another root, and `LLMVA_OUT` moves `results/`,
`tables/` and `figures/` elsewhere: the tests use it, so that a check never rewrites what is committed.
"""

import csv
import os
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from llmva.core.errors import InputError

if TYPE_CHECKING:
    import pandas

PACKAGE = Path(__file__).resolve().parents[1]
REPOSITORY = PACKAGE.parents[1]
IN_REPOSITORY = (REPOSITORY / "papermill_params").is_dir()
ROOT = Path(os.environ.get("LLMVA_ROOT", REPOSITORY if IN_REPOSITORY else Path.cwd()))
OUT = Path(os.environ.get("LLMVA_OUT", ROOT)).absolute()

# Another root has them only where it is a repository as well.
SHIPPED = next((place for place in (ROOT, REPOSITORY) if (place / "papermill_params").is_dir()), PACKAGE)
NOTEBOOKS = SHIPPED / "notebooks"
PARAMS = SHIPPED / "papermill_params"
RUNS = ROOT / "runs"
ORGANISMS = ROOT / "organisms"
RESULTS = OUT / "results"
TABLES = OUT / "tables"
FIGURES = OUT / "figures"


def anchored(path: str | Path) -> Path:
    """Return `path` as it is when absolute, else below the repository's root."""
    return ROOT / path


def user_path(path: str | Path) -> Path:
    """Return a path that a user has named from the working folder, as an absolute one; `~` is the user's home."""
    if "\0" in str(path):
        raise InputError(f"{path}: is no name of a file; leave the character of number 0 out")
    return expand_home(path).absolute()


def expand_home(path: str | Path) -> Path:
    """Return a path whose `~` is the user's home; or raise an `InputError` for a user that is not there."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path}: there is no such user; write the folder's whole path") from None


def find_in_package(name: str) -> Path | None:
    """Return the path of a file in an installed package, of which nothing is imported; None without the package.

    The name begins with the package's. A file that the package does not have has a path nevertheless.
    """
    package, _, inside = name.partition("/")
    try:
        spec = find_spec(package)
    except ValueError:  # Of what runs now, and was imported from no package.
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    return next((folder / inside for folder in folders if (folder / inside).is_file()), folders[0] / inside)


def write_atomically(path: str | Path, content: str | bytes) -> bool:
    """Write a file by renaming a finished one; do nothing when the bytes are already there.

    Returns
    -------
    bool
        True when the file changed. An unchanged file keeps its time, so Make sees no staleness.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == data:
        return False
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def write_texts(path: Path, table: "pandas.DataFrame", mode: str = "w") -> None:
    """Write a table with prompts or replies as CSV, or append it to one.

    All text is quoted: unquoted, a lone carriage return in a reply would end its row.
    """
    header = mode == "w" or not path.exists()
    table.to_csv(path, mode=mode, header=header, index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
