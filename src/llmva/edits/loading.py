"""Load a model with the edits of an earlier alignment, where its source is the folder of one."""

import sys
from functools import cache
from pathlib import Path

from llmva.core.errors import InputError
from llmva.core.paths import anchored
from llmva.core.store import MANIFEST, find_changed, read_manifest
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog
from llmva.models.chat_model import ChatModel, load_model
from llmva.models.sources import EDIT_LOG, checkpoint_key, find_base

# Where a manifest's facts say what weights the edits were made for, and that those are in no file.
BASE_KEY, CHANGED = "base_key", "changed_in_memory"


def load_edited(source: str, **options) -> ChatModel:
    """Load a model as `load_model` does; of an aligned model's folder its base, with the edits in its weights."""
    chat_model, earlier = load_model(find_base(source), **options), read_earlier(source)
    edited = set(earlier.sublayers)
    EditedModel({name: module for name, module in chat_model.writers.items() if name in edited}).apply(earlier)
    return chat_model


def read_earlier(source: str) -> EditLog:
    """Return the edits that a model comes with: those of an aligned model's folder, and of any other source none.

    Raises
    ------
    InputError
        When the log is damaged, not the one that the folder's manifest tells of, or made for a model of no file.
    """
    if (base := find_base(source)) == source:
        return EditLog()
    folder = anchored(source)
    manifest = read_manifest(folder)
    require_unchanged(folder, {EDIT_LOG: manifest["files"].get(EDIT_LOG)})
    if manifest["facts"].get(CHANGED):
        fix = "save that model in a folder, and align it there"
        raise InputError(f"{folder}: its edits are made for a model that was changed in memory; {fix}")
    made_for = manifest["facts"].get(BASE_KEY)
    if made_for and made_for != checkpoint_key(base):
        _warn(base, folder)
    return EditLog.load(folder / EDIT_LOG)


def require_unchanged(folder: Path, files: dict[str, str]) -> None:
    """Raise an `InputError` where a file of an aligned model's folder is not as the manifest beside it says."""
    if changed := find_changed(folder, files):
        where, fix = folder / changed[0], "align the model again, or restore the file"
        raise InputError(f"{where}: is not as {MANIFEST} beside it says; {fix}")


@cache
def _warn(base: str, folder: Path) -> None:
    """Say once that edits meet other weights; what comes of it is measured, so nothing is refused."""
    fix = "restore it, or align it anew"
    print(f"{base}: its files are not those that the edits in {folder} were made for; {fix}", file=sys.stderr)
