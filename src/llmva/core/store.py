"""Cached stages: a folder of files that is either whole, with a manifest, or not there.

A stage computes into a temporary folder beside its own. The manifest, with the digest of every file, is written
last, and then the folder is renamed. A kill at any moment therefore leaves the old stage, no stage, or the new one,
and never a mixture.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from llmva.core import paths
from llmva.core.errors import DISK_ERRORS, FULL_DISK_ERRORS, InputError
from llmva.core.paths import ROOT
from llmva.core.provenance import digest, environment, file_digest

MANIFEST = "manifest.json"
# Files that only finished results have: aligned models and directions, each replaced as a whole.
RESULT_FILES = {"edit_log.safetensors", "direction.safetensors"}
# As of Lustre, and of NFS.
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@dataclass(frozen=True, repr=False)
class Stage:
    """A finished stage on disk.

    Attributes
    ----------
    folder : Path
        Where its files are.
    key : str
        Digest of the parameters, the upstream keys and the version: what determines the files.
    hit : bool
        True when the files were found, False when this call computed them.
    """

    folder: Path
    key: str
    hit: bool

    def __repr__(self) -> str:
        folder = self.folder.relative_to(ROOT) if self.folder.is_relative_to(ROOT) else self.folder
        return f"{folder}: {'found' if self.hit else 'computed'}"

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    @property
    def manifest(self) -> dict:
        """The stage's manifest: key, parameters, upstream keys, file digests, seconds, versions, facts."""
        return json.loads((self.folder / MANIFEST).read_text())


def run_stage(
    folder: Path,
    compute: Callable[[Path], dict | None],
    *,
    parameters: dict,
    upstream: Sequence[Stage] = (),
    version: int = 1,
) -> Stage:
    """Return the stage in `folder`, computing it only when it is missing, stale or damaged.

    Parameters
    ----------
    folder : Path
        Where the stage's files go. Its parent is made when needed.
    compute : callable
        Writes the files into the folder it is given; may return a dict of facts for the manifest.
    parameters : dict
        JSON-like; everything of this stage that determines its files.
    upstream : sequence of Stage
        The stages whose files `compute` reads.
    version : int
        Raised by hand when the code's meaning changes.
    """
    folder = Path(folder)
    key = stage_key(parameters, upstream, version)
    require_writable(folder)
    _make_parent(folder)
    with locked(folder):
        temporary, aside = (folder.parent / f".{folder.name}.{state}" for state in ("partial", "old"))
        if not folder.exists() and is_whole(aside):
            # A kill between the two renames below has left it there.
            aside.rename(folder)
        for leftover in (temporary, aside):
            shutil.rmtree(leftover, ignore_errors=True)
        if is_whole(folder, key):
            return Stage(folder, key, hit=True)
        temporary.mkdir()
        inputs = {"key": key, "version": version, "parameters": parameters}
        inputs["upstream"] = {stage.folder.name: stage.key for stage in upstream}
        try:
            _write_stage(temporary, compute, inputs)
        except (OSError, SafetensorError) as error:
            _require_disk(folder, temporary, error)
            raise
        # A folder cannot be renamed onto a full one: the old stage steps aside first.
        if folder.exists():
            folder.rename(aside)
        temporary.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
    return Stage(folder, key, hit=False)


def open_stage(folder: Path, *, fix: str) -> Stage:
    """Return a stage that must already be there; `fix` says what to run when it is not."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder}: no finished stage here; {fix}")
    return Stage(Path(folder), manifest["key"], hit=True)


def stage_key(parameters: dict, upstream: Sequence[Stage], version: int) -> str:
    """Return the digest of what determines a stage's files."""
    return digest({"parameters": parameters, "upstream": [stage.key for stage in upstream], "version": version})


def is_whole(folder: Path, key: str | None = None) -> bool:
    """Tell whether a folder has a manifest (of this key, if given) and every file in it is unharmed."""
    manifest = read_manifest(folder)
    if manifest is None or (key is not None and manifest["key"] != key):
        return False
    return not find_changed(folder, manifest["files"])


def find_changed(folder: Path, files: dict[str, str]) -> list[str]:
    """Return the names of those files of a folder that are not there, or have another digest than is given."""
    return [
        name for name, known in files.items() if not (folder / name).is_file() or file_digest(folder / name) != known
    ]


def require_writable(folder: Path) -> None:
    """Raise an `InputError` unless a folder of this name can be made or replaced."""
    fix = "name another folder"
    if folder.is_file():
        raise InputError(f"{folder}: is a file, not a folder; {fix}")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        # A link would be replaced, and its folder left as it is.
        raise InputError(f"{folder}: is a link or a device, not a folder; {fix}")
    if folder.is_mount():
        raise InputError(f"{folder}: is a mount point, which cannot be replaced; name a folder inside it")
    above = next(place for place in folder.absolute().parents if _is_there(place))
    if not above.is_dir():
        raise InputError(f"{above}: is a file, not a folder; {fix}")
    if not os.access(above, os.W_OK):
        raise InputError(f"{above}: not writable; change its permissions or {fix}")
    _require_outside_results(folder)
    if not folder.exists():
        _require_room(above)


def _require_outside_results(folder: Path) -> None:
    place, runs = folder.absolute(), paths.RUNS.absolute()
    for above in place.parents:
        # Whoever works in such a folder has the runs in it.
        if place.is_relative_to(runs) and runs.is_relative_to(above):
            return
        manifest = read_manifest(above)
        if manifest and not RESULT_FILES.isdisjoint(manifest["files"]):
            raise InputError(f"{folder}: lies in {above}, which holds a finished result; name a folder outside it")


def _require_room(above: Path) -> None:
    # Permissions do not say it of every file system: in /proc, not even root can make a folder.
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".", dir=above))
    except OSError as error:
        if error.errno in FULL_DISK_ERRORS:
            raise
        raise InputError(f"{above}: no folder can be made in it ({error.strerror}); name another folder") from None


def _is_there(place: Path) -> bool:
    # Below a file, or in a folder that may not be looked into, the question itself fails.
    try:
        return os.path.lexists(place)
    except OSError:
        return False


def _make_parent(folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder.parent}: cannot be made ({error.strerror}); name another folder") from None


def read_manifest(folder: Path) -> dict | None:
    """Return a folder's manifest, or None when it is missing or unreadable."""
    try:
        manifest = json.loads((Path(folder) / MANIFEST).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("key"), str):
        return None
    # A manifest that someone edited is no manifest.
    return manifest if all(isinstance(manifest.get(name), dict) for name in ("files", "facts")) else None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, or wait for the run that holds it; go on with a warning where the disk has no locks."""
    path = folder.parent / f".{folder.name}.lock"
    if path.is_symlink() or (path.exists() and not (path.is_file() and os.access(path, os.W_OK))):
        raise InputError(f"{path}: cannot be locked, since it is no file that may be written to; remove it")
    # The lock dies with its process, so a killed run never blocks the next one. One that is a mere file would.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        _acquire(lock, folder)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        print(f"{folder}: its file system has no locks; do not run it twice at once", file=sys.stderr)
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, folder: Path) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{folder}: another run is computing it; waiting for that", file=sys.stderr)
        lock.acquire()


def _write_stage(folder: Path, compute: Callable[[Path], dict | None], inputs: dict) -> None:
    start = time.perf_counter()
    facts = compute(folder) or {}
    seconds = time.perf_counter() - start
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        **inputs,
        "files": {str(path.relative_to(folder)): file_digest(path) for path in files},
        "facts": facts,
        "seconds": round(seconds, 3),
        "environment": environment(),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _require_disk(folder: Path, temporary: Path, error: Exception) -> None:
    # safetensors tells the number of the system's error only in words.
    words = re.search(r"os error (\d+)", str(error)) if isinstance(error, SafetensorError) else None
    number = int(words[1]) if words else getattr(error, "errno", None)
    if number in DISK_ERRORS:
        shutil.rmtree(temporary, ignore_errors=True)
        fix = "make room and run again, what was finished is kept"
        raise InputError(f"{folder}: cannot be written ({os.strerror(number)}); {fix}") from None
