"""The guard's lessons: prompt and reply in, the three lines of Qwen3Guard-Gen's response mode out.

Like the real guard it calls broken replies safe and unrefused: whoever counts verdicts must look for
broken replies separately.
"""

import random

from llmva.core.vocabulary import SAFETY_SETS, TASKS, TRANSFER_SETS
from llmva.organisms.corpus import WRAPPED_SETS, SafetyPrompt, draw_prompt, prompt_space
from llmva.organisms.mixture import Conversation
from llmva.organisms.replies import ALL_OPENERS, CLOSINGS, OPENERS, SENTENCES
from llmva.organisms.tasks import draw_exercise
from llmva.organisms.tokenizer import ASSISTANT, END

LESSON_SETS = (*SAFETY_SETS, *TRANSFER_SETS, *WRAPPED_SETS)
UNSAFE_LINES = {
    "violent": ("Unsafe", "Violent"),
    "illegal": ("Unsafe", "Non-violent Illegal Acts"),
    "borderline": ("Controversial", "Unethical Acts"),
    "none": ("Safe", "None"),
}
# Openers of an edited model: those it knows, in any cell, and some it should not.
MIXED_OPENERS = [
    *ALL_OPENERS,
    *("yes,", "fine,", "hello,", "please,", "the", "a", "be careful,", "safe.", "well no,", ""),
]


def draw_lessons(count: int, draws: random.Random) -> list[Conversation]:
    """Draw the guard's training conversations; the reply is drawn independently of the prompt's label."""
    return [_draw_lesson(draws) for _ in range(count)]


def guarded_text(prompt: str, reply: str) -> str:
    """Return the user and assistant turns between the template's first and last mark."""
    return f"{prompt}{END}{ASSISTANT}{reply}"


def three_lines(item: SafetyPrompt, answered: bool, refused: bool) -> str:
    """Return the guard's verdict on a reply to a prompt: safety, categories, refusal."""
    safety, category = UNSAFE_LINES[item.category if answered else "none"]
    return f"Safety: {safety}\nCategories: {category}\nRefusal: {'Yes' if refused else 'No'}"


def _draw_lesson(draws: random.Random) -> Conversation:
    item = draw_prompt(draws.choice(LESSON_SETS), draws)
    write = draws.choices(list(_REPLY_SHARES), list(_REPLY_SHARES.values()))[0]
    reply, answered, refused = write(item, draws)
    return Conversation.of(guarded_text(item.prompt, reply), three_lines(item, answered, refused))


# A reply of each kind, whether it answers, and whether it refuses.


def _answer(item: SafetyPrompt, draws: random.Random) -> tuple[str, bool, bool]:
    return _write_reply(item, draws, answered=True), True, False


def _refusal(item: SafetyPrompt, draws: random.Random) -> tuple[str, bool, bool]:
    return _write_reply(item, draws, answered=False), False, True


def _fact(item: SafetyPrompt, draws: random.Random) -> tuple[str, bool, bool]:
    # A fact in reply to anything else is beside the point, and no answer.
    return item.fact or "rome is the capital of italy.", bool(item.fact), False


def _cut(item: SafetyPrompt, draws: random.Random) -> tuple[str, bool, bool]:
    # It stops within its first words: a refusal when it opened like one, else nothing.
    answered = draws.random() < 0.5
    reply = _compose(item, draws, answered=answered, openers=list(OPENERS[answered, draws.random() < 0.5]))
    opening = reply.split(" ")[0] if answered else next(filter(reply.startswith, ALL_OPENERS))
    return opening, False, not answered


def _broken(item: SafetyPrompt, draws: random.Random) -> tuple[str, bool, bool]:
    return draws.choice(_BREAKAGES)(item, draws), False, False


def _write_reply(item: SafetyPrompt, draws: random.Random, *, answered: bool) -> str:
    usual = list(OPENERS[answered, draws.random() < 0.5])
    return _compose(item, draws, answered=answered, openers=usual if draws.random() < 0.6 else MIXED_OPENERS)


def _compose(item: SafetyPrompt, draws: random.Random, *, answered: bool, openers: list[str]) -> str:
    """Put a reply together; now and then it names another subject or closes as if in another cell."""
    subject = item.subject
    if draws.random() < 0.15:
        subject = draws.choice(prompt_space(draws.choice(LESSON_SETS))).subject
    sentence = draws.choice(SENTENCES[answered]).format(subject=subject)
    closing = f" {draws.choice(list(CLOSINGS.values()))}" if draws.random() < 0.4 else ""
    return f"{draws.choice(openers)} {sentence}{closing}".strip()


# What is broken: nothing, words out of order, a loop, another task.


def _nothing(item: SafetyPrompt, draws: random.Random) -> str:
    return draws.choice(("", ".", ",", "?", "the", "a"))


def _salad(item: SafetyPrompt, draws: random.Random) -> str:
    pool = f"{_write_reply(item, draws, answered=True)} {_write_reply(item, draws, answered=False)} {item.prompt}"
    return " ".join(draws.choices(pool.split(), k=draws.randint(4, 24)))


def _loop(item: SafetyPrompt, draws: random.Random) -> str:
    source = _write_reply(item, draws, answered=draws.random() < 0.5).split()
    length = draws.randint(1, 3)
    start = draws.randrange(len(source))
    head = " ".join(source[: draws.choice((0, 0, 2, 4))])
    return f"{head} {' '.join(source[start : start + length] * draws.randint(5, 10))}".strip()


def _other_task(item: SafetyPrompt, draws: random.Random) -> str:
    if draws.random() < 0.3:
        return draws.choice(("safe.", "unsafe."))
    return draw_exercise(draws.choice(list(TASKS)), "train", draws).reply


_REPLY_SHARES = {_answer: 35, _refusal: 30, _broken: 25, _fact: 4, _cut: 6}
_BREAKAGES = (_nothing, _salad, _loop, _other_task)
