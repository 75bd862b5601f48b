"""Guesses of what a model will say: what was said to the same prompt before, by whatever model."""

from collections.abc import Sequence
from dataclasses import dataclass, field

# Of one prompt, newest first; older ones hardly ever come back.
MAX_DRAFTS = 8


@dataclass(frozen=True)
class Drafts:
    """Replies given before, as token ids with their end, by the prompt's token ids.

    An engine confirms a draft token by token, so a wrong one costs time and never changes a reply, but where two tokens
    are equally likely to within the rounding of the weights' type: many tokens are confirmed in one pass.
    """

    _known: dict[tuple[int, ...], list[tuple[int, ...]]] = field(default_factory=dict, repr=False)

    def add(self, prompt: Sequence[int], reply: Sequence[int]) -> None:
        """Remember a reply as its prompt's newest one."""
        known, reply = self._known.setdefault(tuple(prompt), []), tuple(reply)
        if reply in known:
            known.remove(reply)
        known.insert(0, reply)
        del known[MAX_DRAFTS:]

    def find(self, prompt: Sequence[int], first: int) -> tuple[int, ...] | None:
        """Return the newest known reply to a prompt that begins with a token, if there is one."""
        known = self._known.get(tuple(prompt), ())
        return next((reply for reply in known if reply[0] == first), None)
