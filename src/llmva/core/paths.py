"""Paths anchored at the repository's root, and writes that are all or nothing.

Where the package was installed without a repository, `runs/` and the rest lie in the working folder, and the notebooks
and parameter files are those in the package. `LLMVA_ROOT` names another root, and `LLMVA_OUT` moves `results/`,
`tables/` and `figures/` elsewhere: the tests use it, so that a check never rewrites what is committed.
"""

import csv
import errno
import os
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from llmva.core.errors import FULL_DISK_ERRORS, InputError

if TYPE_CHECKING:
    import pandas

PACKAGE = Path(__file__).resolve().parents[1]
REPOSITORY = PACKAGE.parents[1]
IN_REPOSITORY = (REPOSITORY / "papermill_params").is_dir()
# One that is set to nothing is not set.
ROOT = Path(os.environ.get("LLMVA_ROOT") or (REPOSITORY if IN_REPOSITORY else Path.cwd())).absolute()
OUT = Path(os.environ.get("LLMVA_OUT") or ROOT).absolute()

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
    return require_name(path, "a file").absolute()


def require_name(path: str | Path, kind: str) -> Path:
    """Return a path that a user has named, with `~` as the user's home.

    Raises
    ------
    InputError
        When it is no text, nothing, or of such a kind that the system cannot even look whether it is there.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"{path!r:.80}: is no name of {kind}; give it as a text")
    if not str(path):
        raise InputError(f"'': is no name of {kind}; write one")
    if "\0" in str(path):
        raise InputError(f"{path}: is no name of {kind}; leave the character of number 0 out")
    place = expand_home(path)
    try:
        place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise InputError(f"{path!s:.80}: cannot be looked for ({error.strerror}); name another one") from None
    return place


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

    Raises
    ------
    InputError
        When nothing can be written there.
    """
    path = require_name(path, "a file")
    data = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == data:
        return False
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        # A disk that is full or fails is told of where the work that is lost is known.
        if error.errno in (*FULL_DISK_ERRORS, errno.EIO):
            raise
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); name another place") from None
    return True


def write_texts(path: Path, table: "pandas.DataFrame", mode: str = "w") -> None:
    """Write a table with prompts or replies as CSV, or append it to one.

    All text is quoted: unquoted, a lone carriage return in a reply would end its row.
    """
    header = mode == "w" or not path.exists()
    table.to_csv(path, mode=mode, header=header, index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
