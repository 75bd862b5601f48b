"""Numbers in prose: each stands in a fragment that is built from committed files, or is part of a name."""

import re
from collections.abc import Iterable

import pandas

NUMBERS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
# Digits that measure nothing: in code, in items and names of the paper, and in what a metric or setting is called.
NAMES = (
    r"`[^`]*`",
    r"\]\([^)]*\)",
    r"(?:Figures?|Tables?|Eq\.|[Nn]otebooks?) \d+(?:(?:, | and | to )(?:\d+|Figure \d+))*",
    r"\bF1\b",
    r"\b95 % (?:intervals?|\[)",
    r"\[95 %\]",
    r"\btiny-\w+",
    r"\bSmolLM2-135M-Instruct\b",
    r"\bC = (?:1|0\.1)(?!\d|\.\d)",
    r"\blambda 0\b",
)


def count_in_words(count: int) -> str:
    """Return a small count as prose has it."""
    return NUMBERS[count]


def list_in_words(counts: Iterable[int]) -> str:
    """Return different counts as prose has them: one, or several joined by `and`."""
    *rest, last = map(str, dict.fromkeys(map(int, counts)))
    return f"{', '.join(rest)} and {last}" if rest else last


def standing_by_seed(scores: pandas.DataFrame, method: str, others: tuple[str, str]) -> str:
    """Return where a method's scores stand to two others': one seed a row, one method a column."""
    places = (scores[list(others)].lt(scores[method], axis=0)).sum(axis=1)
    *rest, last = [
        f"{('below both others', 'between them', 'above both others')[place]} ({score:.3f})"
        for place, score in zip(places, scores[method], strict=True)
    ]
    return f"seed by seed {method} is {', '.join(rest)} and {last}"


def unchecked_numbers(text: str, fragments: list[str]) -> list[str]:
    """Return the numbers of a text that stand in none of its checked fragments."""
    for fragment in sorted(fragments, key=len, reverse=True):
        text = text.replace(fragment, " ")
    for name in NAMES:
        text = re.sub(name, " ", text)
    return re.findall(r"\d+(?:\.\d+)?", text)


def changed_at_each_number(text: str) -> list[str]:
    """Return copies of a text with another digit in each of its numbers that is no name."""
    names = [span for name in NAMES for span in (found.span() for found in re.finditer(name, text))]
    copies = []
    for number in re.finditer(r"\d+(?:\.\d+)?", text):
        if not any(start <= number.start() < end for start, end in names):
            last = number.end() - 1
            copies.append(f"{text[:last]}{(int(text[last]) + 1) % 10}{text[last + 1 :]}")
    return copies
