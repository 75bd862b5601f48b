"""Where a model comes from: a checkpoint folder or the hub at a commit, and what identifies its weights."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download

from llmva.core.errors import InputError
from llmva.core.paths import anchored
from llmva.core.provenance import digest, file_digest
from llmva.core.store import MANIFEST, is_whole, read_manifest

LARGE_FILE = 256 * 2**20
COMMIT_HASH = re.compile(r"[0-9a-f]{40}")


def split_source(source: str) -> tuple[str, str]:
    """Return what a source names, and its revision: a folder has none, whatever signs are in its name."""
    if anchored(source).is_dir():
        return source, ""
    name, _, revision = source.partition("@")
    return name, revision


def locate(source: str) -> tuple[Path | str, dict]:
    """Return a checkpoint folder, or a hub id with the options that pin its revision."""
    folder = anchored(source)
    if folder.is_dir():
        _require_weights(folder)
        return folder, {}
    if Path(source).is_absolute() or source.startswith((".", "runs/")):
        tiny = folder.is_relative_to(anchored("runs"))
        fix = "`make organisms` builds the tiny ones" if tiny else "name a folder as save_pretrained writes it"
        raise InputError(f"{source}: no such model folder; {fix}")
    name, revision = split_source(source)
    if not COMMIT_HASH.fullmatch(revision):
        # A branch moves, and with it the weights behind finished stages.
        raise InputError(
            f"{source}: no such folder, and a hub id needs a commit; write {name}@<40 hex digits>, as the model's page "
            "shows them under Files and versions, History"
        )
    return name, {"revision": revision}


def local_folder(source: str) -> Path:
    """Return the folder with a model's files: the folder itself, or where the hub's files were fetched to.

    Raises
    ------
    InputError
        When nothing was fetched yet: loading the model does.
    """
    location, options = locate(source)
    if isinstance(location, Path):
        return location
    try:
        return Path(snapshot_download(location, local_files_only=True, **options))
    except (OSError, ValueError):
        raise InputError(f"{source}: its files are not on this machine; load the model once, with a network") from None


def checkpoint_key(source: str) -> str:
    """Return what identifies a model's weights in a stage's key, without loading them.

    A hub id with its revision, or the digest of a folder's files; large files count by size and time.
    """
    folder = anchored(source)
    if not folder.is_dir():
        return source
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
    return digest([[path.name, _file_key(path)] for path in files])


def _require_weights(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json; name a checkpoint folder as save_pretrained writes it")
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"{folder}: no weights (*.safetensors); save the model with safe serialisation")
    if read_manifest(folder) is not None and not is_whole(folder):
        raise InputError(f"{folder}: a file is not as its manifest says; `make organisms` builds the folder again")


def _file_key(path: Path) -> str:
    status = path.stat()
    return file_digest(path) if status.st_size < LARGE_FILE else f"{status.st_size}:{status.st_mtime_ns}"
