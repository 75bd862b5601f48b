"""Replies of thinking models: what counts is what follows the thinking."""

from collections.abc import Sequence

from llmva.models.templates import THINKING

# A judge's raw words on a reply that ended inside its thinking: nobody was asked.
UNFINISHED = "ended inside its thinking"


def read_answers(replies: Sequence[str], opened: bool = False) -> list[str | None]:
    """Return each reply's answer, behind its last thinking span; None where the span never closed.

    `opened` says that the template has opened the span, so that a reply holds its end alone; see
    `llmva.models.templates.opens_thinking`.
    """
    return [_answer(reply, opened) for reply in replies]


def _answer(reply: str, opened: bool) -> str | None:
    for end in THINKING.values():
        _, closed, answer = reply.rpartition(end)
        if closed:
            return answer.strip()
    return None if opened or reply.lstrip().startswith(tuple(THINKING)) else reply
