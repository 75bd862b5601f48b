"""Chat templates: what a model's own turns a chat into, and whether the prompt is still in it."""

import copy
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from llmva.core.errors import InputError, first_line

# Real ones have some 30,000 characters; reading one is otherwise endless.
MAX_TEMPLATE = 300_000
# How templates of thinking models open the span in which they think, and how it ends; and how those of some families
# do, which are read likewise, but not given a budget.
OPENED_THINKING, CLOSED_THINKING = "<think>", "</think>"
THINKING = {
    OPENED_THINKING: CLOSED_THINKING, "<thinking>": "</thinking>", "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
}  # fmt: skip
# Above a template it stands above what the caller says, which is that nobody thinks.
THINK = "{%- set enable_thinking = true -%}"
# Words that no template has of its own, to find again in what it writes.
PROBE = "Which colour has zyxomma?"
# Whether a tokenizer's template wants content as a list of parts, by tokenizer and template.
_TAKES_PARTS: WeakKeyDictionary = WeakKeyDictionary()


def render_chats(tokenizer: PreTrainedTokenizerBase, chats: Sequence[list[dict]]) -> list[str]:
    """Return chats as the tokenizer's template writes them, generation prompt included.

    Some templates read a turn's content as a list of parts and drop a string: those are given parts.
    """
    known = _TAKES_PARTS.setdefault(tokenizer, {})
    if tokenizer.chat_template not in known:
        probe = [{"role": "user", "content": PROBE}]
        known[tokenizer.chat_template] = PROBE not in _render(tokenizer, [probe], parts=False)[0]
    return _render(tokenizer, chats, parts=known[tokenizer.chat_template])


def written_behind_reply(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what the template writes behind a reply: how it ends a turn, which may be otherwise than a text ends.

    Nothing where it takes no replies.
    """
    chat = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Reply."}]
    try:
        _, reply, after = tokenizer.apply_chat_template(chat, tokenize=False).rpartition("Reply.")
    except Exception:  # A template is a program, and may raise anything.
        return ""
    return after if reply else ""


def find_turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the token that the template ends a turn with; None where it writes none, or words of several tokens."""
    if not (written := written_behind_reply(tokenizer)):
        return None
    # Some models count Gemma's end of a turn among the user's own tokens, as they do its runs of line breaks.
    whole = {number for number, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
    after = tokenizer(written, add_special_tokens=False)["input_ids"]
    return next((token for token in after if token in whole), None)


def list_ends(shipped: int | list[int] | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that end a reply: a model's `eos_token_id`, or its tokenizer's, and that of its template.

    Many fine-tuned models ship the end of a text alone, and would write the user's next turn themselves.
    """
    ends = tokenizer.eos_token_id if shipped is None else shipped
    turn = find_turn_end(tokenizer)
    known = ends if isinstance(ends, list) else [] if ends is None else [ends]
    return list(dict.fromkeys([*known, *([] if turn is None else [turn])]))


def decode_replies(tokenizer: PreTrainedTokenizerBase, replies: Sequence[Sequence[int]]) -> list[str]:
    """Return replies as texts, without special tokens but for those that a thinking span begins and ends with."""
    added, known = tokenizer.added_tokens_decoder.items(), {*THINKING, *THINKING.values()}
    marks = {number: token.content for number, token in added if token.special and token.content in known}
    if not marks:
        return tokenizer.batch_decode(replies, skip_special_tokens=True) if len(replies) else []
    return [_decode_between(tokenizer, [int(token) for token in reply], marks) for reply in replies]


def _decode_between(tokenizer: PreTrainedTokenizerBase, reply: list[int], marks: dict[int, str]) -> str:
    places = [place for place, token in enumerate(reply) if token in marks]
    parts = [reply[begin + 1 : end] for begin, end in zip([-1, *places], [*places, len(reply)], strict=True)]
    texts = tokenizer.batch_decode(parts, skip_special_tokens=True)
    return texts[0] + "".join(marks[reply[place]] + text for place, text in zip(places, texts[1:], strict=True))


def opens_thinking(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether a tokenizer's template begins each reply with a thinking span that the model is to close."""
    (written,) = render_chats(tokenizer, [[{"role": "user", "content": "Hello."}]])
    return written.rstrip().endswith(tuple(THINKING))


def told_to_think(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return a copy of a tokenizer whose template, where it has the switch, lets the model think."""
    told = copy.deepcopy(tokenizer)
    told.chat_template = THINK + tokenizer.chat_template
    return told


def choose_template(templates: dict[str, str], source: str) -> str:
    """Return the default one of a tokenizer's chat templates; or raise an `InputError`."""
    if "default" not in templates:
        named = ", ".join(sorted(templates))
        raise InputError(f"{source}: its chat templates are {named}, and none is `default`; name the one to use so")
    return templates["default"]


def require_template(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Raise an `InputError` unless the template writes one user turn, with the prompt in it, without a system turn.

    It is tried before weights are loaded.
    """
    template = tokenizer.chat_template
    if not template:
        raise InputError(f"{source}: the tokenizer has no chat template; add chat_template.jinja to the folder")
    if not isinstance(template, str):
        fix = "restore the model's own"
        raise InputError(f"{source}: chat template: is a {type(template).__name__}, not a text; {fix}")
    if len(template) > MAX_TEMPLATE:
        size = f"{len(template):,} characters"
        raise InputError(f"{source}: chat template: has {size}, more than {MAX_TEMPLATE:,}; restore the model's own")
    try:
        (written,) = render_chats(tokenizer, [[{"role": "user", "content": PROBE}]])
    except Exception as error:  # A template is a program, and may raise anything.
        chat = "a chat of one user turn without a system turn"
        raise InputError(
            f"{source}: chat template: fails on {chat} ({first_line(error)}); edit chat_template.jinja so that it "
            "writes one"
        ) from None
    if PROBE not in written:
        raise InputError(
            f"{source}: chat template: drops the user's prompt; edit chat_template.jinja so that it writes "
            "message['content']"
        )


def _render(tokenizer: PreTrainedTokenizerBase, chats: Sequence[list[dict]], *, parts: bool) -> list[str]:
    options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
    chats = [[_in_parts(turn) for turn in chat] for chat in chats] if parts else chats
    return [tokenizer.apply_chat_template(chat, **options) for chat in chats]


def _in_parts(turn: dict) -> dict:
    return {**turn, "content": [{"type": "text", "text": turn["content"]}]}
