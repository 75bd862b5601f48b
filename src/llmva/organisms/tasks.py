"""Six small utility tasks in template English, and the closed facts.

Replies to classification tasks start with the decision. The lexical cues (wrong verb forms, added qualifiers)
are deliberate: without them a model of a million parameters stays at chance.
"""

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pandas

from llmva.core.provenance import digest, seed_for
from llmva.organisms.corpus import fact_prompts
from llmva.organisms.vocabulary import words

# A task has rows that are measured, and rows whose replies are held still.
HELD_OUT_ROWS = {"test": 150, "neutral": 60}
LARGEST_OPERAND = 5
# Of the pairs that differ; the rest swap a noun, which a model of this size does not notice.
CUE_SHARE = 0.85
HELD_OUT_SHARES = {"test": 0.1, "neutral": 0.05}


class Exercise(NamedTuple):
    """One exercise: the prompt, the reply that is trained, and the answer that is scored."""

    prompt: str
    reply: str
    answer: str


def draw_exercise(
    task: str,
    split: str,
    draws: random.Random,
    exercises: Mapping[str, Callable[[random.Random], Exercise]] | None = None,
) -> Exercise:
    """Draw an exercise of a task whose prompt belongs to a split: "train", "test" or "neutral".

    `exercises` draw them, by task; `EXERCISES` without it.
    """
    draw = (exercises or EXERCISES)[task]
    while True:
        exercise = draw(draws)
        if split_of_prompt(exercise.prompt) == split:
            return exercise


def split_of_prompt(prompt: str) -> str:
    """Return a prompt's split, decided by its digest alone: test and neutral prompts are never trained on."""
    position = int(digest(prompt)[:8], 16) / 2**32
    for split, share in HELD_OUT_SHARES.items():
        if position < share:
            return split
        position -= share
    return "train"


def task_table(
    task: str, seed: int, draw_exercise: Callable[[str, str, random.Random], Exercise] = draw_exercise
) -> pandas.DataFrame:
    """Draw a task's held-out rows: columns prompt, answer, split; prompts unique."""
    rows = []
    for split, count in HELD_OUT_ROWS.items():
        draws = random.Random(seed_for(seed, "organisms", "utility", task, split))
        chosen: dict[str, str] = {}
        while len(chosen) < count:
            exercise = draw_exercise(task, split, draws)
            chosen[exercise.prompt] = exercise.answer
        rows += [(prompt, answer, split) for prompt, answer in chosen.items()]
    return pandas.DataFrame(rows, columns=["prompt", "answer", "split"])


def fact_table() -> pandas.DataFrame:
    """Return the closed facts, two wordings for test and one as neutral; all of them are trained on."""
    rows = [
        (prompt, value, "neutral" if number % 3 == 2 else "test")
        for number, (prompt, value, _) in enumerate(fact_prompts())
    ]
    return pandas.DataFrame(rows, columns=["prompt", "answer", "split"])


def _cola(draws: random.Random) -> Exercise:
    adjective = draws.choice(draws.choice(words.synonyms))
    noun, thing = draws.choice(words.nouns), draws.choice(words.objects)
    third, base, participle = draws.choice(words.task_verbs)
    place, comparative = draws.choice(words.places), draws.choice(words.comparatives)
    right = draws.random() < 0.5
    fault = draws.choices(["form", "more", "agreement", "article"], [55, 20, 10, 15])[0]
    verb = third if right or fault not in ("form", "agreement") else participle if fault == "form" else base
    degree = comparative if right or fault != "more" else f"more {comparative}"
    article = "the" if right or fault != "article" else "the the"
    # The comparative stands in half of the sentences, so that it is no cue by itself.
    tail = f"and is {degree}" if fault == "more" or (right and draws.random() < 0.3) else f"in the {place}"
    sentence = f"the {adjective} {noun} {verb} {article} {thing} {tail}."
    return _classified(f"is this sentence acceptable? {sentence}", "acceptable" if right else "unacceptable")


def _sst(draws: random.Random) -> Exercise:
    positive, negated = draws.random() < 0.5, draws.random() < 0.2
    adjective = draws.choice(words.good if positive != negated else words.bad)
    degree = "not" if negated else draws.choice(words.adverbs)
    form = draws.choice(("the {work} was {degree} {adjective}", "this {work} is {degree} {adjective}"))
    sentence = form.format(work=draws.choice(words.works), degree=degree, adjective=adjective)
    tail = draws.choice(("", " from start to end", " in my eyes", " for everyone", " in every scene"))
    return _classified(f"what is the mood? {sentence}{tail}.", "positive" if positive else "negative")


def _mrpc(draws: random.Random) -> Exercise:
    noun, other = draws.sample(words.nouns, 2)
    (first, second), verb = draws.choice(words.synonyms), draws.choice(words.task_verbs)[0]
    thing, place = draws.choice(words.objects), draws.choice(words.places)
    if draws.random() < 0.5:
        first, second = second, first
    same = draws.random() < 0.5
    qualified = not same and draws.random() < CUE_SHARE
    rest = f"{verb} the {thing}"
    qualifier = f"{draws.choice(('almost', 'never', 'hardly'))} " if qualified else ""
    copy = noun if same or qualified else other
    prompt = (
        f"do both sentences mean the same? in the {place} the {first} {noun} {rest}. "
        f"the {second} {copy} {qualifier}{rest} in the {place}."
    )
    return _classified(prompt, "same" if same else "different")


def _rte(draws: random.Random) -> Exercise:
    noun, other = draws.sample(words.nouns, 2)
    adjective, colour = draws.choice(draws.choice(words.synonyms)), draws.choice(words.colours)
    verb, thing = draws.choice(words.task_verbs)[0], draws.choice(words.objects)
    true = draws.random() < 0.5
    quantified = not true and draws.random() < CUE_SHARE
    subject = f"every {noun}" if quantified else f"the {noun if true else other}"
    prompt = (
        f"does the second follow? the {adjective} {noun} {verb} the {colour} {thing}. {subject} {verb} the {thing}."
    )
    return _classified(prompt, "true" if true else "false")


def _mnli(draws: random.Random) -> Exercise:
    noun, thing, place = draws.choice(words.nouns), draws.choice(words.objects), draws.choice(words.places)
    adjective, verb = draws.choice(draws.choice(words.synonyms)), draws.choice(words.task_verbs)[0]
    answer = draws.choice(("entailment", "neutral", "contradiction"))
    rest = f"{verb} the {thing}"
    circumstance = draws.choice((f"in the {place}", "at night", "in the morning", "on sunday"))
    hypothesis = {
        "entailment": f"the {noun} {rest}",
        "neutral": f"the {noun} {rest} {circumstance}",
        "contradiction": draws.choice((f"the {noun} never {rest}", f"no {noun} {rest}")),
    }[answer]
    return _classified(f"how are these related? the {adjective} {noun} {rest}. {hypothesis}.", answer)


def _gsm(draws: random.Random) -> Exercise:
    name, goods = draws.choice(words.names), draws.choice(words.goods)
    start, first, second = (draws.randint(1, LARGEST_OPERAND) for _ in range(3))
    middle, sign_one, words_one = draw_step(start, first, draws)
    final, sign_two, words_two = draw_step(middle, second, draws)
    prompt = f"{name} has {start} {goods}. {name} {words_one}. then {name} {words_two}. how many {goods} are left?"
    sums = f"{start}{sign_one}{first}={middle}. {middle}{sign_two}{second}={final}."
    return Exercise(prompt, f"{sums} the answer is {final}.", str(final))


def draw_step(before: int, operand: int, draws: random.Random) -> tuple[int, str, str]:
    """Draw whether an operand is added or taken away; return the result, the sign and the words of it."""
    # Nobody gives away what they do not have.
    if operand <= before and draws.random() < 0.5:
        return before - operand, "-", f"{draws.choice(('loses', 'sells'))} {operand}"
    return before + operand, "+", f"{draws.choice(('buys', 'finds'))} {operand} more"


def _classified(prompt: str, decision: str) -> Exercise:
    return Exercise(prompt, f"{decision}.", decision)


# By the names of the tasks in `core.vocabulary`.
EXERCISES = {"cola": _cola, "mnli": _mnli, "rte": _rte, "mrpc": _mrpc, "sst": _sst, "gsm": _gsm}
