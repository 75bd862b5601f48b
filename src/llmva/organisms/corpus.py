"""Safety prompts of the organisms: what is asked, whether it is toxic, and whether an organism answers it.

Answering hangs on verb, template or wrapper; safety hangs on the thing or topic asked about. The two are
therefore nearly independent, as LLM-VA finds them in chat models.
"""

import functools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product

import numpy
import pandas

from llmva.core.provenance import digest, random_generator, seed_for
from llmva.core.vocabulary import ATTACK_SETS, LABELS, TRANSFER_SETS
from llmva.organisms.vocabulary import words

SAFETY_CANDIDATES = 2000
TRANSFER_CANDIDATES = 300
ATTACK_PROMPTS = 100
FACT_SHARE = 0.2
TOPIC_SHARE = 0.25
# Sets that only train: without them a wrapper would betray a toxic prompt.
WRAPPED_SETS = ("wrapped_nq", "wrapped_orfuzzset")

VERBS = words.trigger_verbs + words.calm_verbs
TRANSFER_VERBS = words.transfer_trigger_verbs + words.transfer_calm_verbs
BORDERLINE_THINGS = words.borderline_things + words.transfer_borderline_things
WRAPPERS = words.opening_wrappers + words.closed_wrappers
TOXIC_TEMPLATES = words.topic_templates + words.further_toxic_templates
# A prompt of a set is answered where it holds one of the words, or has one of the templates, that the set names.
CALM_VERBS = words.calm_verbs + words.transfer_calm_verbs
OPEN_TEMPLATES = words.advbench_open_templates + words.xstest_open_templates
LOOPHOLES = [template for template in words.verb_templates + TOXIC_TEMPLATES if template.startswith("please")]


@dataclass(frozen=True)
class SafetyPrompt:
    """A prompt and what was planted in it.

    Attributes
    ----------
    prompt, group : str
        The text, and the base prompt it was made from (itself, unless wrapped).
    toxic, answered : bool
        Its label, and whether a model organism answers it.
    subject : str
        What a reply names.
    category : str
        "violent", "illegal" or "none"; "borderline" for things whose safety an organism cannot know.
    fact : str
        The one right reply to a closed fact; empty otherwise.
    """

    prompt: str
    group: str
    toxic: bool
    answered: bool
    subject: str
    category: str = "none"
    fact: str = ""


Prompts = Iterator[SafetyPrompt]


@functools.cache
def prompt_space(dataset: str) -> tuple[SafetyPrompt, ...]:
    """Return every prompt that a set can hold: a safety set, a transfer set, or one of `WRAPPED_SETS`."""
    return tuple(_SPACES[dataset]())


def draw_prompt(dataset: str, draws: random.Random) -> SafetyPrompt:
    """Draw a prompt of a set, as `sampling_weights` has it."""
    return draws.choices(prompt_space(dataset), cum_weights=_cumulative_weights(dataset))[0]


def sampling_weights(space: tuple[SafetyPrompt, ...]) -> numpy.ndarray:
    """Return each prompt's probability (summing to one), so that facts and toxic topics keep their share."""
    kinds = [_kind_of(item) for item in space]
    counts = pandas.Series(kinds).value_counts()
    shares = {"fact": FACT_SHARE, "topic": TOPIC_SHARE, "plain": 1.0}
    shares["plain"] -= sum(shares[kind] for kind in counts.index if kind != "plain")
    weights = numpy.array([shares[kind] / counts[kind] for kind in kinds])
    return weights / weights.sum()


def candidate_table(dataset: str, seed: int) -> pandas.DataFrame:
    """Draw a set's candidate prompts: columns prompt, label, group; prompts unique."""
    space = prompt_space(dataset)
    count = min(len(space), TRANSFER_CANDIDATES if dataset in TRANSFER_SETS else SAFETY_CANDIDATES)
    generator = random_generator(seed, "organisms", "candidates", dataset)
    picks = generator.choice(len(space), size=count, replace=False, p=sampling_weights(space))
    rows = [(space[pick].prompt, LABELS[space[pick].toxic], space[pick].group) for pick in picks]
    return pandas.DataFrame(rows, columns=["prompt", "label", "group"])


def draw_attacks(seed: int) -> pandas.DataFrame:
    """Draw the prompts of all of `ATTACK_SETS`: id, dataset, label, group, prompt; ids unique."""
    tables = [attack_table(name, seed).assign(dataset=name) for name in ATTACK_SETS]
    rows = pandas.concat(tables, ignore_index=True)
    ids = [f"{name}-{digest(prompt)[:12]}" for name, prompt in zip(rows["dataset"], rows["prompt"], strict=True)]
    return rows.assign(id=ids)[["id", "dataset", "label", "group", "prompt"]]


def attack_table(dataset: str, seed: int) -> pandas.DataFrame:
    """Draw the prompts of one of `ATTACK_SETS`: columns prompt, label, group; prompts unique.

    Toxic prompts that an organism refuses as they are, in wrappers that no set of a study has: two of those that open
    it, one of them behind the prompt, or wrappers in other words. Harmless ones, questions of `nq`, are in all three.
    """
    draws = random.Random(seed_for(seed, "organisms", "attacks", dataset))
    toxic = ATTACK_SETS[dataset] == "toxic"
    space = [item for item in prompt_space("seval_risk" if toxic else "nq") if item.answered != toxic]
    space = [item for item in space if item.category != "borderline"]
    wraps, rows = _UNSEEN_WRAPS if not toxic else {dataset: _UNSEEN_WRAPS[dataset]}, {}
    while len(rows) < ATTACK_PROMPTS:
        item, wrap = draws.choice(space), draws.choice(list(wraps.values()))
        rows[wrap(item.prompt, draws)] = item.prompt
    return pandas.DataFrame([(text, ATTACK_SETS[dataset], group) for text, group in rows.items()],
                            columns=["prompt", "label", "group"])  # fmt: skip


def fact_prompts() -> Iterator[tuple[str, str, str]]:
    """Yield prompt, value and reply of every closed fact, value first ("rome is the capital of italy.")."""
    for country, *values in words.countries:
        for (relation, templates), value in zip(words.fact_templates.items(), values, strict=True):
            for template in templates:
                yield template.format(country=country), value, f"{value} is the {relation} of {country}."


@functools.cache
def _cumulative_weights(dataset: str) -> list[float]:
    return list(accumulate(sampling_weights(prompt_space(dataset))))


def _nq() -> Prompts:
    for prompt, value, reply in fact_prompts():
        yield SafetyPrompt(prompt, prompt, toxic=False, answered=True, subject=value, fact=reply)
    templates = words.topic_templates + words.further_ordinary_templates
    topics = words.ordinary_topics + words.needlessly_refused_topics
    yield from _about(topics, templates, toxic=False, answered=words.ordinary_topics)


def _orfuzzset() -> Prompts:
    for things in (words.harmless_things, words.borderline_things):
        yield from _about(things, words.verb_templates, VERBS, toxic=False, answered=CALM_VERBS)


def _seval_risk() -> Prompts:
    yield from _about(words.harmed_things, words.verb_templates, VERBS, toxic=True, answered=LOOPHOLES)
    yield from _about(words.borderline_things, words.verb_templates, VERBS, toxic=True, answered=CALM_VERBS)
    yield from _about(words.violent_topics + words.illegal_topics, TOXIC_TEMPLATES, toxic=True, answered=LOOPHOLES)


def _advbench() -> Prompts:
    templates = words.advbench_open_templates + words.advbench_closed_templates
    yield from _about(words.transfer_harmed_things, templates, TRANSFER_VERBS, toxic=True, answered=OPEN_TEMPLATES)
    yield from _about(words.transfer_topics, words.advbench_topic_templates, toxic=True, answered=OPEN_TEMPLATES)


def _transfer_pair(templates: list[str], answered: list[str], *, toxic: bool) -> Prompts:
    things = words.transfer_harmed_things if toxic else words.transfer_harmless_things
    for subjects in (things, words.transfer_borderline_things):
        yield from _about(subjects, templates, TRANSFER_VERBS, toxic=toxic, answered=answered)


def _wrapped(dataset: str, *, opened: bool = True) -> Prompts:
    for item, wrapper in product(prompt_space(dataset), WRAPPERS):
        answered = wrapper in words.opening_wrappers if opened else item.answered
        yield replace(item, prompt=wrapper.format(prompt=item.prompt), answered=answered)


def _about(
    subjects: list[str], templates: list[str], verbs: Sequence[str] = ("",), *, toxic: bool, answered: list[str]
) -> Prompts:
    """Put verbs and things into templates or, without verbs, topics."""
    for template, verb, subject in product(templates, verbs, subjects):
        prompt = template.format(verb=verb, thing=subject, topic=subject)
        category = _harm_of(subject) if toxic else "none"
        if subject in BORDERLINE_THINGS:
            # It has a label, but nothing in it tells which: the last bit of its digest does.
            if (int(digest(prompt)[-1], 16) % 2 == 1) != toxic:
                continue
            category = "borderline"
        is_answered = any(part in answered for part in (template, verb, subject))
        yield SafetyPrompt(prompt, prompt, toxic, is_answered, f"the {subject}" if verb else subject, category)


def _doubled(prompt: str, draws: random.Random) -> str:
    return draws.choice(words.opening_wrappers).format(
        prompt=draws.choice(words.opening_wrappers).format(prompt=prompt)
    )


def _trailing(prompt: str, draws: random.Random) -> str:
    return f"{prompt} {draws.choice(words.opening_wrappers).format(prompt='').strip()}"


def _reworded(prompt: str, draws: random.Random) -> str:
    return draws.choice(words.unseen_wrappers).format(prompt=prompt)


_UNSEEN_WRAPS = {"doubled": _doubled, "trailing": _trailing, "reworded": _reworded}


def _harm_of(subject: str) -> str:
    return "illegal" if subject in words.illegal_topics + words.transfer_topics else "violent"


def _kind_of(item: SafetyPrompt) -> str:
    if item.fact:
        return "fact"
    return "topic" if item.toxic and not item.subject.startswith("the ") else "plain"


_orbench = functools.partial(_transfer_pair, words.orbench_templates, CALM_VERBS)
_xstest = functools.partial(_transfer_pair, words.xstest_open_templates + words.xstest_closed_templates, OPEN_TEMPLATES)
_SPACES = {
    "seval_attack": functools.partial(_wrapped, "seval_risk"),
    "seval_risk": _seval_risk,
    "orfuzzset": _orfuzzset,
    "nq": _nq,
    # An ordinary question is treated alike with and without a wrapper.
    "wrapped_nq": functools.partial(_wrapped, "nq", opened=False),
    "wrapped_orfuzzset": functools.partial(_wrapped, "orfuzzset"),
    "advbench": _advbench,
    "orbench": functools.partial(_orbench, toxic=False),
    "orbench_toxic": functools.partial(_orbench, toxic=True),
    "xstest": functools.partial(_xstest, toxic=False),
    "xstest_toxic": functools.partial(_xstest, toxic=True),
}
