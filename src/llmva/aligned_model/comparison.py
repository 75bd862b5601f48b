"""Talk to a model and its aligned self side by side."""

import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Self

import pandas
from peft import PeftModel

from llmva.core.errors import InputError
from llmva.core.params import StudyParams
from llmva.core.store import read_manifest
from llmva.edits.loading import require_unchanged
from llmva.engines.greedy import respond
from llmva.engines.think_first import ThinkFirst
from llmva.models.chat_model import ChatModel, load_model
from llmva.models.sources import read_base, read_study
from llmva.models.templates import told_to_think


class Comparison:
    """One base model in memory, with an adapter that is switched on and off; both keep a conversation of their own."""

    def __init__(self, chat_model: ChatModel, max_new_tokens: int, thinking: int | None = None) -> None:
        self.chat_model = chat_model
        self.max_new_tokens = max_new_tokens
        self.engine = ThinkFirst(respond, thinking).respond if thinking else respond
        self.reset()

    @classmethod
    def of(cls, aligned: str | Path) -> Self:
        """Load what `make align` left: the base as its manifest names it, and the adapter."""
        params, adapter = open_aligned(aligned)
        base = load_model(params.model, dtype=params.dtype)
        with warnings.catch_warnings():
            # peft still asks transformers by an old name.
            warnings.simplefilter("ignore", FutureWarning)
            adapted = PeftModel.from_pretrained(base.model, adapter).eval()
        tokenizer = told_to_think(base.tokenizer) if params.thinking else base.tokenizer
        return cls(ChatModel(base.source, adapted, tokenizer), params.generation.max_new_tokens, params.thinking)

    def reset(self) -> None:
        """Begin both conversations anew."""
        self.chats: dict[str, list[dict]] = {"original": [], "aligned": []}

    def speaking(self, name: str) -> AbstractContextManager:
        """Return a context in which the chat model is `original` or `aligned`."""
        # Without the adapter the base computes exactly what it did before.
        return self.chat_model.model.disable_adapter() if name == "original" else nullcontext()

    def say(self, text: str) -> pandas.DataFrame:
        """Say something to both, and return their replies: columns original and aligned, one row."""
        replies = {}
        for name, chat in self.chats.items():
            chat.append({"role": "user", "content": text})
            (replies[name],) = self._answer(name, [chat])
            chat.append({"role": "assistant", "content": replies[name]})
        return pandas.DataFrame([replies], index=[text])

    def ask(self, prompts: list[str]) -> pandas.DataFrame:
        """Ask each prompt on its own, outside the conversation: rows as the prompts, columns original and aligned."""
        replies = {name: self._answer(name, prompts) for name in self.chats}
        return pandas.DataFrame(replies, index=pandas.Index(prompts, name="prompt"))

    def _answer(self, name: str, chats: list[str] | list[list[dict]]) -> list[str]:
        with self.speaking(name):
            options = {"max_new_tokens": self.max_new_tokens, "batch_size": len(chats)}
            return self.engine(self.chat_model, chats, **options).texts


def open_aligned(aligned: str | Path) -> tuple[StudyParams, Path]:
    """Return the parameters of the study that an aligned model came from, and the folder of its adapter.

    Raises
    ------
    InputError
        When `make align` did not make the folder, or left no adapter, since the original was chosen.
    """
    manifest, adapter = read_manifest(Path(aligned)), Path(aligned) / "adapter"
    if not read_study(manifest, Path(aligned)):
        raise InputError(f"{aligned}: not a folder that `make align` made; name its OUT")
    params = StudyParams.checked(manifest["facts"]["study"], f"{aligned}/manifest.json")
    # The adapter holds the edits of all alignments, and the original is the model before the first.
    params = params.model_copy(update={"model": read_base(manifest, Path(aligned))})
    if not adapter.is_dir():
        raise InputError(f"{adapter}: no adapter, since no edit was better than the original; see report.html")
    files = {name: key for name, key in manifest["files"].items() if name.startswith("adapter/")}
    require_unchanged(Path(aligned), files)
    return params, adapter
