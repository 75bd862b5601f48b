"""The guard's lessons: prompt and reply in, the three lines of Qwen3Guard-Gen's response mode out.

Like the real guard it calls broken replies safe and unrefused: whoever counts verdicts must look for
broken replies separately.
"""

import random
from itertools import accumulate

from llmva.core.vocabulary import SAFETY_SETS, TRANSFER_SETS
from llmva.organisms.corpus import SafetyPrompt, prompt_space, sampling_weights
from llmva.organisms.mixture import Conversation
from llmva.organisms.replies import ANSWER_SENTENCES, CLOSINGS, OPENERS, REFUSAL_SENTENCES
from llmva.organisms.tasks import TASKS, draw_exercise
from llmva.organisms.tokenizer import ASSISTANT, END

SETS = (*SAFETY_SETS, *TRANSFER_SETS, "wrapped_nq", "wrapped_orfuzzset")
UNSAFE_LINES = {
    "violent": ("Unsafe", "Violent"),
    "illegal": ("Unsafe", "Non-violent Illegal Acts"),
    "borderline": ("Controversial", "Unethical Acts"),
    "none": ("Safe", "None"),
}
# Openers of an edited model: those it knows, in any cell, and some it should not.
UNUSUAL_OPENERS = ("yes,", "fine,", "hello,", "please,", "the", "a", "be careful,", "safe.", "well no,", "")
REPLY_KINDS = {"answer": 35, "refusal": 30, "broken": 25, "fact": 4, "cut": 6}


def draw_lessons(count: int, draws: random.Random) -> list[Conversation]:
    """Draw the guard's training conversations; the reply is drawn independently of the prompt's label."""
    cumulative = {name: list(accumulate(sampling_weights(prompt_space(name)))) for name in SETS}
    lessons = []
    for _ in range(count):
        dataset = draws.choice(SETS)
        item = draws.choices(prompt_space(dataset), cum_weights=cumulative[dataset])[0]
        kind = draws.choices(list(REPLY_KINDS), list(REPLY_KINDS.values()))[0]
        reply, answered, refused = _REPLIES[kind](item, draws)
        lessons.append(Conversation(guarded_text(item.prompt, reply), three_lines(item, answered, refused)))
    return lessons


def guarded_text(prompt: str, reply: str) -> str:
    """Return the user and assistant turns between the template's first and last mark."""
    return f"{prompt}{END}{ASSISTANT}{reply}"


def three_lines(item: SafetyPrompt, answered: bool, refused: bool) -> str:
    """Return the guard's verdict on a reply to a prompt: safety, categories, refusal."""
    safety, category = UNSAFE_LINES[item.category if answered else "none"]
    return f"Safety: {safety}\nCategories: {category}\nRefusal: {'Yes' if refused else 'No'}"


def _answer(item: SafetyPrompt, draws: random.Random) -> tuple[str, bool, bool]:
    return _sentence_reply(item, draws, answered=True), True, False


def _refusal(item: SafetyPrompt, draws: random.Random) -> tuple[str, bool, bool]:
    return _sentence_reply(item, draws, answered=False), False, True


def _fact(item: SafetyPrompt, draws: random.Random) -> tuple[str, bool, bool]:
    # A fact in reply to anything else is beside the point, and no answer.
    return item.fact or "rome is the capital of italy.", bool(item.fact), False


def _cut(item: SafetyPrompt, draws: random.Random) -> tuple[str, bool, bool]:
    """A reply that stops within its first words: a refusal when it opened like one, else nothing."""
    answered = draws.random() < 0.5
    reply = _compose(item, draws, answered=answered, openers=list(OPENERS[answered, draws.random() < 0.5]))
    return reply.split(" ")[0] if answered else _opener_of(reply), False, not answered


def _broken(item: SafetyPrompt, draws: random.Random) -> tuple[str, bool, bool]:
    return draws.choice(_BREAKAGES)(item, draws), False, False


def _sentence_reply(item: SafetyPrompt, draws: random.Random, *, answered: bool) -> str:
    usual = list(OPENERS[answered, draws.random() < 0.5])
    flipped = [opener for openers in OPENERS.values() for opener in openers] + list(UNUSUAL_OPENERS)
    return _compose(item, draws, answered=answered, openers=usual if draws.random() < 0.6 else flipped)


def _compose(item: SafetyPrompt, draws: random.Random, *, answered: bool, openers: list[str]) -> str:
    """Put a reply together; now and then it names another subject or closes as if in another cell."""
    subject = item.subject
    if draws.random() < 0.15:
        subject = draws.choice(prompt_space(draws.choice(SETS))).subject
    sentence = draws.choice(ANSWER_SENTENCES if answered else REFUSAL_SENTENCES).format(subject=subject)
    closing = f" {draws.choice(list(CLOSINGS.values()))}" if draws.random() < 0.4 else ""
    return f"{draws.choice(openers)} {sentence}{closing}".strip()


def _opener_of(reply: str) -> str:
    known = [opener for openers in OPENERS.values() for opener in openers]
    return next(opener for opener in known if reply.startswith(opener))


def _nothing(item: SafetyPrompt, draws: random.Random) -> str:
    return draws.choice(("", ".", ",", "?", "the", "a"))


def _salad(item: SafetyPrompt, draws: random.Random) -> str:
    pool = f"{_sentence_reply(item, draws, answered=True)} {_sentence_reply(item, draws, answered=False)} {item.prompt}"
    return " ".join(draws.choices(pool.split(), k=draws.randint(4, 24)))


def _loop(item: SafetyPrompt, draws: random.Random) -> str:
    source = _sentence_reply(item, draws, answered=draws.random() < 0.5).split()
    length = draws.randint(1, 3)
    start = draws.randrange(len(source))
    head = " ".join(source[: draws.choice((0, 0, 2, 4))])
    return f"{head} {' '.join(source[start : start + length] * draws.randint(5, 10))}".strip()


def _other_task(item: SafetyPrompt, draws: random.Random) -> str:
    if draws.random() < 0.3:
        return draws.choice(("safe.", "unsafe."))
    return draw_exercise(draws.choice(list(TASKS)), "train", draws).reply


_REPLIES = {"answer": _answer, "refusal": _refusal, "broken": _broken, "fact": _fact, "cut": _cut}
_BREAKAGES = (_nothing, _salad, _loop, _other_task)
