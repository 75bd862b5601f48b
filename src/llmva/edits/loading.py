"""Load a model with the edits of an earlier alignment, where its source is the folder of one."""

from llmva.core.errors import InputError
from llmva.core.paths import anchored
from llmva.core.provenance import file_digest
from llmva.core.store import MANIFEST, read_manifest
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog
from llmva.models.chat_model import ChatModel, load_model
from llmva.models.sources import EDIT_LOG, find_base


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
        When the log is damaged, or not the one that the folder's manifest tells of.
    """
    if find_base(source) == source:
        return EditLog()
    path = anchored(source) / EDIT_LOG
    if file_digest(path) != read_manifest(path.parent)["files"].get(EDIT_LOG):
        raise InputError(f"{path}: is not as {MANIFEST} beside it says; align the model again, or restore the file")
    return EditLog.load(path)
