"""An engine for thinking models: they think for so many tokens at most, and are read and asked behind it."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from weakref import WeakKeyDictionary

from llmva.engines.base import Engine, Responses
from llmva.engines.hugging_face import end_tokens
from llmva.models.chat_model import ChatModel, encode_texts
from llmva.models.templates import CLOSED_THINKING, OPENED_THINKING, opens_thinking

# Set in a template it stands above what the caller says, which is that nobody thinks.
SWITCH = "{%- set enable_thinking = true -%}"


class ThinkFirst:
    """Has another engine write the thinking, closes what is still open at the budget's end, and asks for the answer.

    Activations are captured behind the thinking, at the last token before the answer. Replies begin with the thinking.

    Parameters
    ----------
    engine : Engine
        Writes both.
    budget : int
        Longest thinking, in tokens.
    """

    def __init__(self, engine: Engine, budget: int) -> None:
        self.engine, self.budget = engine, budget
        self._told: WeakKeyDictionary = WeakKeyDictionary()

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
            chat_model = replace(chat_model, tokenizer=self._told_to_think(chat_model))
            openings = self._think(chat_model, prompts, **options)
        # A model that did not think has said already what it will say, and its engine may remember it.
        return self.engine(chat_model, prompts, openings=openings if any(openings) else None, **options)

    def _think(self, chat_model: ChatModel, prompts: Sequence, **options) -> list[str]:
        options |= {"max_new_tokens": self.budget, "capture": None}
        with _ending_with(chat_model, CLOSED_THINKING):
            thoughts = self.engine(chat_model, prompts, **options).texts
        opened = opens_thinking(chat_model.tokenizer)
        return [_close(thought, opened) for thought in thoughts]

    def _told_to_think(self, chat_model: ChatModel):
        if chat_model.tokenizer not in self._told:
            tokenizer = copy.deepcopy(chat_model.tokenizer)
            tokenizer.chat_template = SWITCH + tokenizer.chat_template
            self._told[chat_model.tokenizer] = tokenizer
        return self._told[chat_model.tokenizer]


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
