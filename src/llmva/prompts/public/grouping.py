"""Which base prompt an attack was built around, so that no base prompt stands on two sides of a split.

Public files do not say it. Of the released splits of LLM-VA, half of the risk-test prompts occur inside attack
prompts of the training split.
"""

import re
from collections.abc import Sequence

# Characters that an attack must share with a base prompt. Templates are shared by many attacks and are no base.
PASSAGE_LENGTH = 60
# Shorter base prompts must occur whole; below this many characters they are words that any text may hold.
MIN_BASE_LENGTH = 20


def find_bases(prompts: Sequence[str], bases: Sequence[str]) -> list[str]:
    """Return, for each prompt, the base prompt that it holds whole or in a passage of it, or itself.

    Case and white space do not count. Encrypted or paraphrased attacks are not recognised. Of several base
    prompts the one whose passage comes first in the prompt is taken.
    """
    passages: dict[int, dict[str, str]] = {}
    for base in bases:
        text = _plain(base)
        length = min(len(text), PASSAGE_LENGTH)
        if length >= MIN_BASE_LENGTH:
            known = passages.setdefault(length, {})
            for start in range(len(text) - length + 1):
                known.setdefault(text[start : start + length], base)
    return [_base_of(_plain(prompt), passages) or prompt for prompt in prompts]


def fold(text: str) -> str:
    """Return a text without case, punctuation and doubled white space: what near-duplicates have in common."""
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split()) or text


def _base_of(text: str, passages: dict[int, dict[str, str]]) -> str | None:
    for length in sorted(passages, reverse=True):
        known = passages[length]
        for start in range(len(text) - length + 1):
            if base := known.get(text[start : start + length]):
                return base
    return None


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
