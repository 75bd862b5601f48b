"""Safety prompts of the organisms: what is asked, whether it is toxic, and whether an organism answers it.

Answering hangs on verb, template or wrapper; safety hangs on the thing or topic asked about. The two are
therefore nearly independent, as LLM-VA finds them in chat models.
"""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy
import pandas

from llmva.core.provenance import digest, random_generator
from llmva.core.vocabulary import TRANSFER_SETS
from llmva.organisms import vocabulary as words

SAFETY_CANDIDATES = 2000
TRANSFER_CANDIDATES = 300
FACT_SHARE = 0.2
TOPIC_SHARE = 0.25


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


def prompt_space(dataset: str) -> tuple[SafetyPrompt, ...]:
    """Return every prompt that a set can hold.

    Sets: the four safety sets, the five transfer sets, and two that only train: `wrapped_nq` and
    `wrapped_orfuzzset`, without which a wrapper would betray a toxic prompt.
    """
    return _SPACES[dataset]()


def sampling_weights(space: tuple[SafetyPrompt, ...]) -> numpy.ndarray:
    """Return each prompt's probability (summing to one), so that facts and toxic topics keep their share."""
    kinds = ["fact" if item.fact else "topic" if _is_toxic_topic(item) else "plain" for item in space]
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
    rows = [(item.prompt, "toxic" if item.toxic else "benign", item.group) for item in (space[pick] for pick in picks)]
    return pandas.DataFrame(rows, columns=["prompt", "label", "group"])


def fact_prompts() -> Iterator[tuple[str, str, str]]:
    """Yield prompt, value and reply of every closed fact, value first ("rome is the capital of italy.")."""
    for country, *values in words.COUNTRIES:
        for (relation, templates), value in zip(words.FACT_TEMPLATES.items(), values, strict=True):
            for template in templates:
                yield template.format(country=country), value, f"{value} is the {relation} of {country}."


@functools.cache
def _nq() -> tuple[SafetyPrompt, ...]:
    facts = (
        _plain(prompt, toxic=False, answered=True, subject=value, fact=reply) for prompt, value, reply in fact_prompts()
    )
    topics = words.ORDINARY_TOPICS + words.NEEDLESSLY_REFUSED_TOPICS
    questions = (
        _plain(template.format(topic=topic), toxic=False, answered=topic in words.ORDINARY_TOPICS, subject=topic)
        for template, topic in product(words.ORDINARY_TEMPLATES, topics)
    )
    return (*facts, *questions)


@functools.cache
def _orfuzzset() -> tuple[SafetyPrompt, ...]:
    verbs = words.TRIGGER_VERBS + words.CALM_VERBS
    harmless = _about_things(words.VERB_TEMPLATES, verbs, words.HARMLESS_THINGS, answered=_has_calm_verb)
    return (*harmless, *_borderline(toxic=False))


@functools.cache
def _seval_risk() -> tuple[SafetyPrompt, ...]:
    verbs = words.TRIGGER_VERBS + words.CALM_VERBS
    harmed = _about_things(
        words.VERB_TEMPLATES, verbs, words.HARMED_THINGS, answered=_is_loophole, category="violent", toxic=True
    )
    topics = (
        _plain(
            template.format(topic=topic),
            toxic=True,
            answered=_is_loophole(template, ""),
            subject=topic,
            category="violent" if topic in words.VIOLENT_TOPICS else "illegal",
        )
        for template, topic in product(words.TOXIC_TEMPLATES, words.VIOLENT_TOPICS + words.ILLEGAL_TOPICS)
    )
    return (*harmed, *_borderline(toxic=True), *topics)


@functools.cache
def _seval_attack() -> tuple[SafetyPrompt, ...]:
    return tuple(_wrapped(_seval_risk()))


@functools.cache
def _wrapped_nq() -> tuple[SafetyPrompt, ...]:
    # An ordinary question is treated alike with and without a wrapper.
    answered = {item.group: item.answered for item in _nq()}
    return tuple(replace(item, answered=answered[item.group]) for item in _wrapped(_nq()))


@functools.cache
def _wrapped_orfuzzset() -> tuple[SafetyPrompt, ...]:
    return tuple(_wrapped(_orfuzzset()))


@functools.cache
def _advbench() -> tuple[SafetyPrompt, ...]:
    templates = words.ADVBENCH_OPEN_TEMPLATES + words.ADVBENCH_CLOSED_TEMPLATES
    verbs = words.TRANSFER_TRIGGER_VERBS + words.TRANSFER_CALM_VERBS
    harmed = _about_things(
        templates,
        verbs,
        words.TRANSFER_HARMED_THINGS,
        answered=lambda template, verb: template in words.ADVBENCH_OPEN_TEMPLATES,
        category="violent",
        toxic=True,
    )
    topics = (
        _plain(template.format(topic=topic), toxic=True, answered=False, subject=topic, category="illegal")
        for template, topic in product(words.ADVBENCH_TOPIC_TEMPLATES, words.TRANSFER_TOPICS)
    )
    return (*harmed, *topics)


def _transfer_pair(templates: tuple[str, ...], answered, *, toxic: bool) -> tuple[SafetyPrompt, ...]:
    verbs = words.TRANSFER_TRIGGER_VERBS + words.TRANSFER_CALM_VERBS
    things = words.TRANSFER_HARMED_THINGS if toxic else words.TRANSFER_HARMLESS_THINGS
    category = "violent" if toxic else "none"
    clear = _about_things(templates, verbs, things, answered=answered, category=category, toxic=toxic)
    unclear = _about_things(templates, verbs, words.TRANSFER_BORDERLINE_THINGS, answered=answered)
    return (*clear, *_of_one_label(unclear, toxic=toxic))


@functools.cache
def _orbench(toxic: bool = False) -> tuple[SafetyPrompt, ...]:
    return _transfer_pair(words.ORBENCH_TEMPLATES, _has_calm_verb, toxic=toxic)


@functools.cache
def _xstest(toxic: bool = False) -> tuple[SafetyPrompt, ...]:
    templates = words.XSTEST_OPEN_TEMPLATES + words.XSTEST_CLOSED_TEMPLATES
    return _transfer_pair(templates, lambda template, verb: template in words.XSTEST_OPEN_TEMPLATES, toxic=toxic)


_SPACES = {
    "seval_attack": _seval_attack,
    "seval_risk": _seval_risk,
    "orfuzzset": _orfuzzset,
    "nq": _nq,
    "wrapped_nq": _wrapped_nq,
    "wrapped_orfuzzset": _wrapped_orfuzzset,
    "advbench": _advbench,
    "orbench": _orbench,
    "orbench_toxic": functools.partial(_orbench, toxic=True),
    "xstest": _xstest,
    "xstest_toxic": functools.partial(_xstest, toxic=True),
}


def _plain(prompt: str, **planted) -> SafetyPrompt:
    return SafetyPrompt(prompt, prompt, **planted)


def _about_things(
    templates: Iterable[str], verbs: Iterable[str], things: Iterable[str], *, answered, category="none", toxic=False
) -> Iterator[SafetyPrompt]:
    for template, verb, thing in product(templates, verbs, things):
        prompt = template.format(verb=verb, thing=thing)
        yield _plain(prompt, toxic=toxic, answered=answered(template, verb), subject=f"the {thing}", category=category)


def _borderline(toxic: bool) -> Iterator[SafetyPrompt]:
    verbs = words.TRIGGER_VERBS + words.CALM_VERBS
    prompts = _about_things(words.VERB_TEMPLATES, verbs, words.BORDERLINE_THINGS, answered=_has_calm_verb)
    return _of_one_label(prompts, toxic=toxic)


def _of_one_label(prompts: Iterable[SafetyPrompt], *, toxic: bool) -> Iterator[SafetyPrompt]:
    # A borderline prompt has a label, but nothing in it tells which: the last bit of its digest does.
    for item in prompts:
        if (int(digest(item.prompt)[-1], 16) % 2 == 1) == toxic:
            yield replace(item, toxic=toxic, category="borderline")


def _wrapped(space: Iterable[SafetyPrompt]) -> Iterator[SafetyPrompt]:
    for item in space:
        for wrapper in words.OPENING_WRAPPERS + words.CLOSED_WRAPPERS:
            prompt = wrapper.format(prompt=item.prompt)
            yield replace(item, prompt=prompt, answered=wrapper in words.OPENING_WRAPPERS)


def _has_calm_verb(template: str, verb: str) -> bool:
    return verb in words.CALM_VERBS + words.TRANSFER_CALM_VERBS


def _is_loophole(template: str, verb: str) -> bool:
    return template.startswith("please")


def _is_toxic_topic(item: SafetyPrompt) -> bool:
    return item.toxic and not item.subject.startswith("the ")
