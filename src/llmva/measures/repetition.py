"""How much a text repeats itself, or what was said before: shares of word 4-grams."""

from collections.abc import Sequence

WORDS = 4


def repeated_share(text: str) -> float:
    """Return the share of a text's 4-grams of words that occurred in it before; 0 for a shorter text."""
    grams = _grams(text)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def reused_share(text: str, earlier: Sequence[str]) -> float:
    """Return the share of a text's 4-grams of words that occur in an earlier text; 0 for a shorter text."""
    grams, known = _grams(text), {gram for other in earlier for gram in _grams(other)}
    return sum(gram in known for gram in grams) / len(grams) if grams else 0.0


def _grams(text: str) -> list[tuple[str, ...]]:
    words = text.split()
    return [tuple(words[start : start + WORDS]) for start in range(len(words) - WORDS + 1)]
