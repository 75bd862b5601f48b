"""An engine for thinking models: they think for so many tokens at most, and are read and asked behind it."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from llmva.engines.base import Engine, Responses
from llmva.engines.hugging_face import end_tokens
from llmva.models.activations import Activations, Capture
from llmva.models.chat_model import ChatModel, encode_texts
from llmva.models.reading import read_activations
from llmva.models.templates import CLOSED_THINKING, OPENED_THINKING, opens_thinking


class ThinkFirst:
    """Has another engine write the thinking, closes what is still open at the budget's end, and asks for the answer.

    Activations are captured behind the thinking, at the last token before the answer. Replies begin with the thinking.
    The tokenizer must have been told to let the model think; see `models.templates.told_to_think`.

    Parameters
    ----------
    engine : Engine
        Writes both.
    budget : int
        Longest thinking, in tokens.
    """

    def __init__(self, engine: Engine, budget: int) -> None:
        self.engine, self.budget = engine, budget

    def respond(
        self,
        chat_model: ChatModel,
        prompts: Sequence[str | list[dict]],
        *,
        openings: Sequence[str] | None = None,
        **options,
    ) -> Responses:
        """Answer prompts or chats; see `Engine`. With `openings` nobody thinks."""
        if openings is None:
            openings = self._think(chat_model, prompts, **options)
        # A model that did not think has said already what it will say, and its engine may remember it.
        return self.engine(chat_model, prompts, openings=openings if any(openings) else None, **options)

    def read(
        self, chat_model: ChatModel, prompts: Sequence[str | list[dict]], *, capture: Capture, batch_size: int
    ) -> Activations:
        """Record prompts where `respond` captures them, without an answer."""
        thoughts = self._think(chat_model, prompts, max_new_tokens=0, batch_size=batch_size)
        return read_activations(chat_model, prompts, thoughts, capture=capture, batch_size=batch_size)

    def _think(self, chat_model: ChatModel, prompts: Sequence, **options) -> list[str]:
        title = options.get("progress")
        options |= {"max_new_tokens": self.budget, "capture": None, "progress": title and f"{title}: thinking"}
        with _ending_with(chat_model, CLOSED_THINKING):
            thoughts = self.engine(chat_model, prompts, **options).texts
        opened = opens_thinking(chat_model.tokenizer)
        return [_close(thought, opened) for thought in thoughts]


def _close(thought: str, opened: bool) -> str:
    """Return a closed thinking span; nothing of a reply that has none."""
    if CLOSED_THINKING not in thought and not opened and not thought.lstrip().startswith(OPENED_THINKING):
        return ""
    return f"{thought.partition(CLOSED_THINKING)[0].rstrip()}\n{CLOSED_THINKING}\n\n"


@contextmanager
def _ending_with(chat_model: ChatModel, text: str) -> Iterator[None]:
    """Let a text of one token end replies, too; one of several tokens ends none."""
    shipped, (tokens,) = chat_model.model.generation_config, encode_texts(chat_model.tokenizer, [text])
    ending = copy.deepcopy(shipped)
    ending.eos_token_id = [*end_tokens(chat_model), *(tokens if len(tokens) == 1 else [])] or None
    chat_model.model.generation_config = ending
    try:
        yield
    finally:
        chat_model.model.generation_config = shipped
