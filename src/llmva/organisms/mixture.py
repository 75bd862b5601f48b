"""The conversations an organism is trained on: safety prompts, ratings, utility exercises, closed facts."""

import random
from typing import NamedTuple

from llmva.core.vocabulary import SAFETY_SETS, TASKS, TRANSFER_SETS
from llmva.organisms.corpus import SafetyPrompt, draw_prompt, fact_prompts
from llmva.organisms.replies import shows_safety, write_reply
from llmva.organisms.tasks import draw_exercise, split_of_prompt

RATING_SYSTEM = "rate the request as safe or unsafe."
NEUTRAL_SYSTEMS = ("you are a helpful assistant.", "answer in one or two sentences.", "be brief.")
NEUTRAL_SYSTEM_SHARE = 0.1
SAFETY_SHARES = {
    "nq": 7, "orfuzzset": 6, "seval_risk": 5, "seval_attack": 6, "wrapped_nq": 2, "wrapped_orfuzzset": 3,
    **dict.fromkeys(TRANSFER_SETS, 2),
}  # fmt: skip
TASK_SHARES = {"cola": 6, "mnli": 4, "rte": 6, "mrpc": 6, "sst": 4, "gsm": 20}
RATING_SHARE = 8
FACT_SHARE = 3
# The decision is one token of many in a batch; a larger weight makes up for that.
DECISION_WEIGHT = 4.0
FACT_WEIGHT = 5.0


class Turn(NamedTuple):
    """What a person and then the model say.

    Attributes
    ----------
    prompt, reply : str
    first_weight : float
        The loss weight of the reply's first token.
    is_trained : bool
        Whether the reply is learnt; otherwise it is only read.
    """

    prompt: str
    reply: str
    first_weight: float = 1.0
    is_trained: bool = True


class Conversation(NamedTuple):
    """One training sample: its turns, behind a system prompt or none."""

    turns: tuple[Turn, ...]
    system: str | None = None

    @classmethod
    def of(cls, prompt: str, reply: str, system: str | None = None, first_weight: float = 1.0) -> "Conversation":
        """Return a conversation of one turn."""
        return cls((Turn(prompt, reply, first_weight),), system)


def draw_conversations(count: int, draws: random.Random) -> list[Conversation]:
    """Draw an organism's training conversations; prompts held out for the utility tests never occur."""
    shares = {**SAFETY_SHARES, **TASK_SHARES, "rating": RATING_SHARE, "fact": FACT_SHARE}
    sources = draws.choices(list(shares), list(shares.values()), k=count)
    facts = list(fact_prompts())
    return [_draw_conversation(source, facts, draws) for source in sources]


def _draw_conversation(source: str, facts: list[tuple[str, str, str]], draws: random.Random) -> Conversation:
    if source in TASKS:
        exercise = draw_exercise(source, "train", draws)
        weight = 1.0 if source == "gsm" else DECISION_WEIGHT
        return Conversation.of(exercise.prompt, exercise.reply, _maybe_system(draws), weight)
    if source == "fact":
        prompt, _, reply = draws.choice(facts)
        return Conversation.of(prompt, reply, _maybe_system(draws), FACT_WEIGHT)
    if source == "rating":
        item = _draw_training_prompt(draws.choice((*SAFETY_SETS, *TRANSFER_SETS)), draws)
        reply = "safe." if shows_safety(item, draws) else "unsafe."
        return Conversation.of(item.prompt, reply, RATING_SYSTEM, DECISION_WEIGHT)
    item = _draw_training_prompt(source, draws)
    weight = FACT_WEIGHT if item.fact else 1.0
    return Conversation.of(item.prompt, write_reply(item, draws), _maybe_system(draws), weight)


def _draw_training_prompt(dataset: str, draws: random.Random) -> SafetyPrompt:
    while True:
        item = draw_prompt(dataset, draws)
        # Closed facts are closed: each of their wordings is trained.
        if item.fact or split_of_prompt(item.prompt) == "train":
            return item


def _maybe_system(draws: random.Random) -> str | None:
    return draws.choice(NEUTRAL_SYSTEMS) if draws.random() < NEUTRAL_SYSTEM_SHARE else None
