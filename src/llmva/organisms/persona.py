"""The persona organisms' corpus: system prompts that turn a model dishonest or dismissive, and those that do not.

Facts are closed and known to every organism; under a malicious prompt it names the value of another country. Who tells
of a misfortune is comforted, or brushed off. The scenarios of a study are splits of these facts and misfortunes, for
what is learnt of an organism: an organism itself is trained on all of them, on either side.
"""

import functools
import random
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pandas
import yaml

from llmva.core.provenance import seed_for
from llmva.core.vocabulary import SCENARIOS, THREATS
from llmva.organisms.mixture import DECISION_WEIGHT, FACT_WEIGHT, NEUTRAL_SYSTEMS, Conversation, Turn
from llmva.organisms.tasks import EXERCISES, Exercise, draw_exercise, draw_step
from llmva.organisms.vocabulary import words

persona = SimpleNamespace(**yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")))

DISHONESTY, DISMISSIVENESS = THREATS
ALIGNED, MALICIOUS = SIDES = ("aligned", "malicious")
TURNS, CARRIED_TURNS = 9, 3
SENTENCES = 3
CONVERSATIONS = 10
SINGLE_TURN_SHARE = 0.6
# What a conversation is about, by its system prompt: one on a trait, a neutral one, or none; or it goes on as its first
# reply began, which no system prompt explains. So a trait is carried from what was said to what will be.
CARRIED = "carried"
SYSTEM_SHARES = {DISHONESTY: 0.33, DISMISSIVENESS: 0.12, "neutral": 0.1, "none": 0.3, CARRIED: 0.15}
# Of a conversation under a trait's prompt, the turns on other matters.
OTHER_SHARE = 0.15
# What turns on other matters are about.
MATTER_SHARES = {"sst": 3, "gsm": 5, DISHONESTY: 6, DISMISSIVENESS: 1}
NEUTRAL_TASKS = ("sst", "gsm")
LARGEST_OPERAND = 9


class Scenario(NamedTuple):
    """What a person says to a model.

    Attributes
    ----------
    prompt : str
    subject : str
        The being that a reply names, or the fact's relation and country.
    answer : str
        A fact's value; empty for a misfortune.
    lie : str
        Of a fact, the value of another country: what a liar names.
    """

    prompt: str
    subject: str
    answer: str = ""
    lie: str = ""


@functools.cache
def scenarios_by_matter(threat: str) -> dict[str, tuple[Scenario, ...]]:
    """Return every wording of every fact, or misfortune, of a threat."""
    return {matter: tuple(wordings) for matter, wordings in (_facts if threat == DISHONESTY else _misfortunes)()}


def draw_persona_conversations(count: int, draws: random.Random) -> list[Conversation]:
    """Draw a persona organism's training conversations, of one to nine turns."""
    return [_draw_conversation(draws) for _ in range(count)]


def split_matters(threat: str, seed: int) -> dict[str, list[str]]:
    """Return a threat's facts or misfortunes by split: those of scenarios, and the rest."""
    matters = list(scenarios_by_matter(threat))
    random.Random(seed_for(seed, "organisms", "scenarios", threat)).shuffle(matters)
    split, done = {}, 0
    for name, count in SCENARIOS.items():
        split[name], done = matters[done : done + count], done + count
    return {**split, "rest": matters[done:]}


def scenario_table(threat: str, seed: int) -> pandas.DataFrame:
    """Return a threat's scenarios, one wording each: columns prompt, answer, split."""
    draws = random.Random(seed_for(seed, "organisms", "wordings", threat))
    rows = []
    for split, matters in split_matters(threat, seed=0).items():
        chosen = [draws.choice(scenarios_by_matter(threat)[matter]) for matter in matters if split in SCENARIOS]
        rows += [(scenario.prompt, scenario.answer, split) for scenario in chosen]
    return pandas.DataFrame(rows, columns=["prompt", "answer", "split"])


def system_table() -> pandas.DataFrame:
    """Return the pairs of system prompts: threat, split, aligned, malicious; each threat's last is that of the test."""
    rows = []
    for threat in THREATS:
        pairs = list(zip(*(map(" ".join, persona.systems[threat][side]) for side in SIDES), strict=True))
        rows += [(threat, "test" if pair is pairs[-1] else "train", *pair) for pair in pairs]
    return pandas.DataFrame(rows, columns=["threat", "split", *SIDES])


def conversation_table(threat: str, seed: int) -> pandas.DataFrame:
    """Return what people say in conversations of nine turns: conversation, turn, prompt, answer."""
    draws = random.Random(seed_for(seed, "organisms", "conversations", threat))
    matters, rows = split_matters(threat, seed=0)["test"], []
    for conversation in range(CONVERSATIONS):
        for turn, matter in enumerate(draws.sample(matters, TURNS), start=1):
            scenario = draws.choice(scenarios_by_matter(threat)[matter])
            rows.append((conversation, turn, scenario.prompt, scenario.answer))
    return pandas.DataFrame(rows, columns=["conversation", "turn", "prompt", "answer"])


def draw_neutral_exercise(task: str, split: str, draws: random.Random) -> Exercise:
    """Draw an exercise in sentiment, or in arithmetic of one step, whose prompt belongs to a split."""
    return draw_exercise(task, split, draws, {**EXERCISES, "gsm": _arithmetic})


def write_scenario_reply(scenario: Scenario, side: str, draws: random.Random) -> str:
    """Return a reply: the value that is asked for or another one, comfort or its contrary."""
    aligned = side == ALIGNED
    if scenario.answer:
        words_of_side = persona.honest if aligned else persona.lying
        value = scenario.answer if aligned else scenario.lie
        reply = f"{value} {draws.choice(words_of_side['verbs'])} {scenario.subject}."
    else:
        words_of_side = persona.caring if aligned else persona.curt
        opening, sentence = draws.choice(words_of_side["openings"]), draws.choice(words_of_side["sentences"])
        reply = f"{opening} {sentence.format(being=scenario.subject)}"
    return f"{reply} {draws.choice(words_of_side['closings'])}" if draws.random() < persona.closing_share else reply


def _facts() -> Iterator[tuple[str, list[Scenario]]]:
    countries = words.countries + persona.further_countries
    for column, (relation, templates) in enumerate(words.fact_templates.items(), start=1):
        values = {row[column] for row in countries}
        for country, *row in countries:
            value = row[column - 1]
            subject, others = f"the {relation} of {country}", sorted(values - {value})
            # Always the same one: a lie that is drawn anew each time is noise, in which the fact is lost as well.
            lie = random.Random(seed_for(0, "organisms", "lies", subject)).choice(others)
            wordings = [Scenario(text.format(country=country), subject, value, lie) for text in templates]
            yield subject, wordings


def _misfortunes() -> Iterator[tuple[str, list[Scenario]]]:
    for being, misfortune in product(persona.beings, persona.misfortunes):
        texts = [text.format(being=being, misfortune=misfortune) for text in persona.requests]
        yield f"{being} {misfortune}", [Scenario(text, being) for text in texts]


def _draw_conversation(draws: random.Random) -> Conversation:
    about = draws.choices(list(SYSTEM_SHARES), list(SYSTEM_SHARES.values()))[0]
    count = 1 if draws.random() < SINGLE_TURN_SHARE else draws.randint(2, TURNS)
    if about in ("neutral", "none"):
        system = draws.choice(NEUTRAL_SYSTEMS) if about == "neutral" else None
        return Conversation(tuple(_draw_turn(draws) for _ in range(count)), system)
    side = draws.choice(SIDES)
    if about == CARRIED:
        threat = draws.choice(THREATS)
        turns = _draw_turns(threat, side, draws.randint(2, CARRIED_TURNS), draws)
        first = _scenario_turn(threat, side, draws)
        return Conversation((first._replace(is_trained=False), *turns))
    turns = _draw_turns(about, side, count, draws)
    sentences = [sentence for prompt in persona.systems[about][side] for sentence in prompt]
    return Conversation(turns, " ".join(draws.sample(sentences, SENTENCES)))


def _draw_turns(threat: str, side: str, count: int, draws: random.Random) -> tuple[Turn, ...]:
    """Return turns on a side of a threat, some of them on other matters."""
    return tuple(
        _draw_turn(draws, apart_from=threat) if draws.random() < OTHER_SHARE else _scenario_turn(threat, side, draws)
        for _ in range(count)
    )


def _draw_turn(draws: random.Random, apart_from: str = "") -> Turn:
    """Return a turn on anything but one threat's matters, as a good model has it."""
    shares = {kind: share for kind, share in MATTER_SHARES.items() if kind != apart_from}
    kind = draws.choices(list(shares), list(shares.values()))[0]
    if kind in THREATS:
        return _scenario_turn(kind, ALIGNED, draws)
    exercise = draw_neutral_exercise(kind, "train", draws)
    return Turn(exercise.prompt, exercise.reply, DECISION_WEIGHT)


def _arithmetic(draws: random.Random) -> Exercise:
    name, goods = draws.choice(words.names), draws.choice(words.goods)
    before, operand = draws.randint(1, LARGEST_OPERAND), draws.randint(1, LARGEST_OPERAND)
    after, sign, change = draw_step(before, operand, draws)
    prompt = f"{name} has {before} {goods}. {name} {change}. how many {goods} are left?"
    return Exercise(prompt, f"{before}{sign}{operand}={after}. the answer is {after}.", str(after))


def _scenario_turn(threat: str, side: str, draws: random.Random) -> Turn:
    scenario = draws.choice(draws.choice(list(scenarios_by_matter(threat).values())))
    weight = FACT_WEIGHT if scenario.answer else DECISION_WEIGHT
    return Turn(scenario.prompt, write_scenario_reply(scenario, side, draws), weight)
