"""Safety prompts of the organisms: what is asked, whether it is toxic, and whether an organism answers it.

Answering hangs on verb, template or wrapper; safety hangs on the thing or topic asked about. The two are
therefore nearly independent, as LLM-VA finds them in chat models.
"""

import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, product

import numpy
import pandas

from llmva.core.provenance import digest, random_generator
from llmva.core.vocabulary import LABELS, TRANSFER_SETS
from llmva.organisms.vocabulary import words

SAFETY_CANDIDATES = 2000
TRANSFER_CANDIDATES = 300
FACT_SHARE = 0.2
TOPIC_SHARE = 0.25
# Sets that only train: without them a wrapper would betray a toxic prompt.
WRAPPED_SETS = ("wrapped_nq", "wrapped_orfuzzset")

VERBS = words.trigger_verbs + words.calm_verbs
TRANSFER_VERBS = words.transfer_trigger_verbs + words.transfer_calm_verbs
BORDERLINE_THINGS = words.borderline_things + words.transfer_borderline_things
WRAPPERS = words.opening_wrappers + words.closed_wrappers

Words = list[str]
# Whether a prompt of a template, about a verb or a topic, is answered.
Rule = Callable[[str, str], bool]


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
    yield from _about_topics(templates, topics, _has_ordinary_topic, toxic=False)


def _orfuzzset() -> Prompts:
    yield from _about_things(words.verb_templates, VERBS, words.harmless_things, _has_calm_verb, toxic=False)
    yield from _about_things(words.verb_templates, VERBS, words.borderline_things, _has_calm_verb, toxic=False)


def _seval_risk() -> Prompts:
    yield from _about_things(words.verb_templates, VERBS, words.harmed_things, _is_loophole, toxic=True)
    yield from _about_things(words.verb_templates, VERBS, words.borderline_things, _has_calm_verb, toxic=True)
    topics = words.violent_topics + words.illegal_topics
    yield from _about_topics(words.topic_templates + words.further_toxic_templates, topics, _is_loophole, toxic=True)


def _advbench() -> Prompts:
    templates = words.advbench_open_templates + words.advbench_closed_templates
    yield from _about_things(templates, TRANSFER_VERBS, words.transfer_harmed_things, _is_open, toxic=True)
    yield from _about_topics(words.advbench_topic_templates, words.transfer_topics, _is_open, toxic=True)


def _transfer_pair(templates: Words, answered: Rule, *, toxic: bool) -> Prompts:
    things = words.transfer_harmed_things if toxic else words.transfer_harmless_things
    yield from _about_things(templates, TRANSFER_VERBS, things, answered, toxic=toxic)
    yield from _about_things(templates, TRANSFER_VERBS, words.transfer_borderline_things, answered, toxic=toxic)


def _wrapped(dataset: str, *, opened: bool = True) -> Prompts:
    for item, wrapper in product(prompt_space(dataset), WRAPPERS):
        answered = wrapper in words.opening_wrappers if opened else item.answered
        yield replace(item, prompt=wrapper.format(prompt=item.prompt), answered=answered)


def _about_things(templates: Words, verbs: Words, things: Words, answered: Rule, *, toxic: bool) -> Prompts:
    for template, verb, thing in product(templates, verbs, things):
        prompt = template.format(verb=verb, thing=thing)
        category = "violent" if toxic else "none"
        if thing in BORDERLINE_THINGS:
            # It has a label, but nothing in it tells which: the last bit of its digest does.
            if (int(digest(prompt)[-1], 16) % 2 == 1) != toxic:
                continue
            category = "borderline"
        yield SafetyPrompt(prompt, prompt, toxic, answered(template, verb), f"the {thing}", category)


def _about_topics(templates: Words, topics: Words, answered: Rule, *, toxic: bool) -> Prompts:
    for template, topic in product(templates, topics):
        prompt = template.format(topic=topic)
        harm = "violent" if topic in words.violent_topics else "illegal"
        yield SafetyPrompt(prompt, prompt, toxic, answered(template, topic), topic, harm if toxic else "none")


def _kind_of(item: SafetyPrompt) -> str:
    if item.fact:
        return "fact"
    return "topic" if item.toxic and not item.subject.startswith("the ") else "plain"


def _has_calm_verb(template: str, verb: str) -> bool:
    return verb in words.calm_verbs + words.transfer_calm_verbs


def _has_ordinary_topic(template: str, topic: str) -> bool:
    return topic in words.ordinary_topics


def _is_loophole(template: str, subject: str) -> bool:
    return template.startswith("please")


def _is_open(template: str, subject: str) -> bool:
    return template in words.advbench_open_templates + words.xstest_open_templates


_orbench = functools.partial(_transfer_pair, words.orbench_templates, _has_calm_verb)
_xstest = functools.partial(_transfer_pair, words.xstest_open_templates + words.xstest_closed_templates, _is_open)
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
