"""Tasks in plain English for a real model that is too small for the six tasks: reviews, pairs, facts, everyday prompts.

Their words are listed in `simple_tasks.yaml`. A model chooses among given answers, or its language alone is measured.
"""

import random
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pandas
import yaml

from llmva.core.provenance import seed_for
from llmva.core.vocabulary import CHOICE_SEPARATOR, REPLY_TASK

WORDS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
# Of reviews and of pairs of sentences; all facts are asked.
SIMPLE_TASK_ROWS = {"test": 150, "neutral": 40}
# One of so many reviews and pairs, or facts, is neutral text, and no test.
NEUTRAL_SENTENCE, NEUTRAL_FACT = 4, 5
MAX_CHOICES, SUMS = 4, 30
# Question and replies: of what was tried, these are what a model of 135 million parameters does above chance.
REVIEW, OPINIONS = (
    "{review}\nHow was the {kind}?",
    {"positive": "The {kind} was good.", "negative": "The {kind} was bad."},
)
PAIR, MEANING = "{premise}\nWhat does this mean?", "It means that {clause}"


def simple_task_table(task: str, seed: int) -> pandas.DataFrame:
    """Draw a simple task's rows.

    Parameters
    ----------
    task : str
        One of `CHOICE_TASKS`, or `REPLY_TASK`.

    Returns
    -------
    DataFrame
        Columns prompt, answer, choices (joined by `CHOICE_SEPARATOR`), split (test or neutral); of `REPLY_TASK` prompt
        and split alone. Prompts are unique, answers balanced, and a right answer stands as often in one place as in
        another. No sentence or fact has both splits.
    """
    if task == REPLY_TASK:
        half = len(WORDS["everyday"]) // 2
        return pandas.DataFrame({"prompt": WORDS["everyday"], "split": ["test"] * half + ["neutral"] * half})
    rows = []
    for split in SIMPLE_TASK_ROWS:
        draws = random.Random(seed_for(seed, "organisms", "simple tasks", task, split))
        drawn = (
            _draw_facts(split, draws) if task == "closed_facts" else _draw_rows(EXERCISES[task](split, draws), split)
        )
        rows += [(prompt, answer, CHOICE_SEPARATOR.join(choices), split) for prompt, answer, choices in drawn]
    return pandas.DataFrame(rows, columns=["prompt", "answer", "choices", "split"])


def _draw_rows(draw: Callable[[int], tuple], split: str) -> list[tuple]:
    """Draw rows with prompts of their own; each is drawn by its number, so that what is balanced stays so."""
    chosen: dict[str, tuple] = {}
    while len(chosen) < SIMPLE_TASK_ROWS[split]:
        row = draw(len(chosen))
        chosen.setdefault(row[0], row)
    return list(chosen.values())


def _reviews(split: str, draws: random.Random) -> Callable[[int], tuple]:
    kinds = list(WORDS["reviews"])
    sentences = {
        (kind, opinion): _shuffled_cycle(_part(WORDS["reviews"][kind][opinion], split, NEUTRAL_SENTENCE), draws)
        for kind in kinds
        for opinion in OPINIONS
    }

    def draw(number: int) -> tuple:
        kind, opinion = kinds[number // 2 % len(kinds)], list(OPINIONS)[number % 2]
        review = f"{draws.choice(WORDS['reviews'][kind]['context'])} {next(sentences[kind, opinion])}"
        choices = {name: text.format(kind=kind) for name, text in OPINIONS.items()}
        return REVIEW.format(review=review, kind=kind), choices[opinion], list(choices.values())

    return draw


def _pairs(split: str, draws: random.Random) -> Callable[[int], tuple]:
    kinds = list(WORDS["pairs"])
    pairs = {kind: _shuffled_cycle(_part(WORDS["pairs"][kind], split, NEUTRAL_SENTENCE), draws) for kind in kinds}

    def draw(number: int) -> tuple:
        words = {name: draws.choice(listed) for name, listed in WORDS["slots"].items()}
        premise, *clauses = (text.format(**words) for text in next(pairs[kinds[number // 2 % len(kinds)]]))
        true, false = (MEANING.format(clause=clause) for clause in clauses)
        prompt = PAIR.format(premise=premise[0].upper() + premise[1:])
        return prompt, true, [true, false] if number % 2 == 0 else [false, true]

    return draw


def _draw_facts(split: str, draws: random.Random) -> list[tuple]:
    facts = [
        (listed["question"].format(asked), answer, list(dict.fromkeys(listed["pairs"].values())))
        for listed in WORDS["facts"].values()
        for asked, answer in _part(list(listed["pairs"].items()), split, NEUTRAL_FACT)
    ]
    facts += [
        (f"What is {first} + {second}?", str(first + second), [str(number) for number in range(2, 19)])
        for first, second in _part(_draw_sums(), split, NEUTRAL_FACT)
    ]
    draws.shuffle(facts)
    rows = []
    for number, (prompt, answer, known) in enumerate(facts):
        choices = draws.sample([other for other in known if other != answer], MAX_CHOICES - 1)
        choices.insert(number % MAX_CHOICES, answer)
        rows.append((prompt, answer, choices))
    return rows


def _draw_sums() -> list[tuple[int, int]]:
    sums = [(first, second) for first in range(1, 10) for second in range(1, 10)]
    # The same for all seeds and splits, so that no sum has both splits.
    return random.Random(0).sample(sums, SUMS)


def _part(listed: list, split: str, every: int) -> list:
    return [entry for number, entry in enumerate(listed, start=1) if (number % every == 0) == (split == "neutral")]


def _shuffled_cycle(listed: list, draws: random.Random) -> cycle:
    return cycle(draws.sample(listed, len(listed)))


EXERCISES = {"sentiment": _reviews, "entailment": _pairs}
