"""Where a model comes from: a checkpoint, a GGUF file, the hub at a commit, or a model that was aligned before."""

import json
import re
from pathlib import Path

from huggingface_hub import snapshot_download

from llmva.core.errors import InputError, first_line
from llmva.core.paths import anchored, require_name
from llmva.core.provenance import digest, file_digest
from llmva.core.store import MANIFEST, find_changed, read_manifest
from llmva.models.gguf_files import PACKAGE_PREFIX, find_gguf, split_gguf

LARGE_FILE = 256 * 2**20
SINGLE_FILE = "model.safetensors"
SHARD_INDEX = f"{SINGLE_FILE}.index.json"
ADAPTER_CONFIG = "adapter_config.json"
# Of the folder of an aligned model.
EDIT_LOG = "edit_log.safetensors"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# What a browser shows of a model: its page, or one at a revision.
HUB_PAGE = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<id>[\w.-]+/[\w.-]+)"
    r"(?:/(?:tree|commit|blob)/(?P<revision>\w+))?(?:[/?#].*)?"
)
COMMIT_HASH = re.compile(r"[0-9a-f]{40}")


def find_base(source: str) -> str:
    """Return the model that a source's edits are made for: of a folder that `make align` left; else the source itself.

    So an aligned model can be named as the model of a further alignment.
    """
    folder = anchored(source)
    manifest = read_manifest(folder) if (folder / EDIT_LOG).is_file() else None
    return read_base(manifest, folder) or source


def read_base(manifest: dict | None, folder: Path) -> str | None:
    """Return the model that the edits of an aligned model's folder are made for, as its manifest says; None of others.

    Raises
    ------
    InputError
        When it is no name, or an aligned model itself, which the base of all edits never is.
    """
    base = (manifest["facts"].get("base") if manifest else None) or read_study(manifest, folder).get("model")
    if base and (not isinstance(base, str) or (anchored(base) / EDIT_LOG).is_file()):
        raise InputError(f"{folder / MANIFEST}: facts.base: is {base!r:.200}, which is no base; restore the file")
    return base


def read_study(manifest: dict | None, folder: Path) -> dict:
    """Return the parameters of the study that a manifest tells of: of an aligned model and of a direction.

    An empty dict where it tells of none; or an `InputError` where they are no parameters.
    """
    study = manifest["facts"].get("study", {}) if manifest else {}
    names = ("model", "slug", "data")
    if not isinstance(study, dict) or not all(isinstance(study.get(name, ""), str) for name in names):
        raise InputError(f"{folder / MANIFEST}: facts.study: is not what a run has written; restore the file")
    return study


def split_source(source: str) -> tuple[str, str]:
    """Return what a source names, and its revision: a folder has none, whatever signs are in its name.

    A GGUF file's is the digest that it is pinned to, if any.
    """
    if anchored(source).is_dir():
        return source, ""
    if named := split_gguf(source):
        return named
    name, _, revision = source.partition("@")
    return name, revision


def absolute_source(source: str) -> str:
    """Return a source as it is named from any folder: the path of a folder or a file made absolute.

    A `~` is the user's home also where the shell has left it, and a page of the hub is its model.

    Raises
    ------
    InputError
        When it can be no name of a model.
    """
    if page := HUB_PAGE.fullmatch(source):
        return page["id"] + (f"@{page['revision']}" if page["revision"] else "")
    place = require_name(source, "a model")
    if source.startswith("~"):
        source = str(place)
    if Path(source).is_dir():
        return str(Path(source).absolute())
    name, pin = split_gguf(source) or ("", "")
    return f"{Path(name).absolute()}{'@' if pin else ''}{pin}" if Path(name).is_file() else source


def shared_name(source: str) -> str:
    """Return what a model, or a file of prompts, is called in what people share: paths of this machine say too much.

    A model of the hub and one in a package are called so everywhere; of a folder or a file it is the last name.
    """
    name, revision = split_source(source)
    return name if revision or source.startswith(PACKAGE_PREFIX) else Path(name).name


def locate(source: str) -> tuple[Path | str, dict]:
    """Return where transformers finds a model, and the options that it needs to; of an aligned model that is its base.

    A checkpoint folder has none; a GGUF file's folder has the file, and a hub id its revision.
    """
    if (base := find_base(source)) != source:
        return locate(base)
    if file := find_gguf(source):
        # By its whole path, since transformers would prefer a file of this name in the working folder.
        return file.path.parent, {"gguf_file": str(file.path)}
    folder = anchored(source)
    if folder.is_dir():
        _require_weights(folder)
        return folder, {}
    if Path(source).is_absolute() or source.startswith((".", "runs/")):
        tiny = folder.is_relative_to(anchored("runs"))
        fix = "`make organisms` builds the tiny ones" if tiny else "name a folder as save_pretrained writes it"
        raise InputError(f"{source}: no such model folder; {fix}")
    name, revision = split_source(source)
    if not HUB_ID.fullmatch(name):
        wrong = "is a file" if folder.is_file() else "no such model folder"
        raise InputError(f"{source}: {wrong}; name a folder as save_pretrained writes it, a GGUF file, or a hub id")
    if not COMMIT_HASH.fullmatch(revision):
        # A branch moves, and with it the weights behind finished stages.
        raise InputError(
            f"{source}: no such folder, and a hub id needs a commit; write {name}@<40 hex digits>, as the model's page "
            "shows them under Files and versions, History"
        )
    return name, {"revision": revision}


def local_folder(source: str) -> Path:
    """Return the checkpoint folder of a model: the folder itself, or where the hub's files were fetched to.

    Raises
    ------
    InputError
        When nothing was fetched yet: loading the model does; or when the model is a GGUF file.
    """
    location, options = locate(source)
    if "gguf_file" in options:
        raise InputError(f"{source}: is a GGUF file, where a checkpoint folder is needed; name that")
    if isinstance(location, Path):
        return location
    try:
        return Path(snapshot_download(location, local_files_only=True, **options))
    except (OSError, ValueError):
        raise InputError(f"{source}: its files are not on this machine; load the model once, with a network") from None


def has_weights(folder: Path) -> bool:
    """Tell whether a folder has weights where `list_shards` looks for them."""
    return any((folder / name).is_file() for name in (SINGLE_FILE, SHARD_INDEX))


def list_shards(folder: Path) -> set[str]:
    """Return the files that transformers loads: the single one where it is there, else those of the index.

    Raises
    ------
    InputError
        When neither is there, the index cannot be read, or a file that it names is not there.
    """
    index = folder / SHARD_INDEX
    if (folder / SINGLE_FILE).is_file():
        return {SINGLE_FILE}
    if not index.is_file():
        raise InputError(f"{folder}: neither {SINGLE_FILE} nor {SHARD_INDEX} is there; restore the checkpoint")
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        absent = sorted(name for name in shards if not (folder / name).is_file())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{index}: cannot be read ({first_line(error)}); restore the checkpoint") from None
    if absent:
        raise InputError(f"{index}: names {', '.join(absent[:3])}, which the folder lacks; restore the checkpoint")
    return shards


def checkpoint_key(source: str) -> str:
    """Return what identifies a model's weights in a stage's key, without loading them.

    A hub id with its revision, the digest of a GGUF file, or that of a folder's files, of which large ones count by
    size and time.
    """
    if file := find_gguf(source):
        return f"sha256:{file.sha256}"
    folder = anchored(source)
    if not folder.is_dir():
        return source
    if (base := find_base(source)) != source:
        return digest([checkpoint_key(base), file_digest(folder / EDIT_LOG)])
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
    return digest([[path.name, _file_key(path)] for path in files])


def _require_weights(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json; name a checkpoint folder as save_pretrained writes it")
    if not has_weights(folder):
        raise InputError(f"{folder}: no weights ({SINGLE_FILE}); save the model with safe serialisation")
    if (adapter := folder / ADAPTER_CONFIG).is_file():
        # transformers would apply it to weights that it may be merged into already.
        fix = "move it and its weights away, or merge it into the model"
        raise InputError(f"{adapter}: is an adapter's, beside a model; {fix}")
    # Of an organism's folder; whatever lies in folders of it is no part of the model.
    manifest = read_manifest(folder) or {"files": {}}
    known = {name: key for name, key in manifest["files"].items() if "/" not in name}
    if wrong := find_changed(folder, known):
        fix = f"restore it, or, if that is meant, remove {MANIFEST} (`make organisms` builds an organism again)"
        raise InputError(f"{folder / wrong[0]}: is not as {MANIFEST} beside it says; {fix}")


def _file_key(path: Path) -> str:
    status = path.stat()
    return file_digest(path) if status.st_size < LARGE_FILE else f"{status.st_size}:{status.st_mtime_ns}"
