"""An engine with a memory: a model in the same state never answers the same prompt twice."""

from collections.abc import Sequence
from pathlib import Path

from llmva.core.provenance import digest
from llmva.core.text_cache import TextCache
from llmva.engines import greedy
from llmva.engines.base import Responses
from llmva.engines.drafts import Drafts
from llmva.engines.hugging_face import end_tokens
from llmva.models.activations import Capture
from llmva.models.chat_model import ChatModel, encode_chats, encode_texts
from llmva.models.reading import read_activations
from llmva.models.state import model_state

# Of a digest, in hexadecimal digits: whole ones would make up half of the file.
KEY_LENGTH = 24


class ReplyMemory:
    """Answers with `greedy`, and remembers replies by the model's state and the prompt.

    What other states said to a prompt are drafts. A steered model has no state that could be told; its replies are
    not remembered.

    Parameters
    ----------
    path : Path, optional
        A SQLite file, which later processes read as well; without it replies are forgotten with the memory.

    Attributes
    ----------
    asked, answered : int
        Prompts that were asked, and those that a model had to answer.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._texts, self._drafts = TextCache(path), Drafts()
        self.asked = self.answered = 0

    def respond(
        self,
        chat_model: ChatModel,
        prompts: Sequence[str | list[dict]],
        *,
        max_new_tokens: int,
        capture: Capture | None = None,
        **options,
    ) -> Responses:
        """Answer prompts or chats; see `Engine` for the options, of which `openings` are not remembered.

        Where every reply is known, prompts are only read for the capture, and not at all without one.
        """
        self.asked += len(prompts)
        if options.get("openings"):
            self.answered += len(prompts)
            return greedy.respond(chat_model, prompts, max_new_tokens=max_new_tokens, capture=capture, **options)
        sequences, state = encode_chats(chat_model.tokenizer, prompts), model_state(chat_model)
        limits = [end_tokens(chat_model), max_new_tokens]
        keys = [digest([state, *limits, sequence])[:KEY_LENGTH] for sequence in sequences]
        known = self._texts.get(sorted(set(keys))) if state else {}
        self._suggest(chat_model, sequences, [known.get(key) for key in keys])
        missing = [place for place, key in enumerate(keys) if key not in known]
        if capture and not missing:
            seen = read_activations(chat_model, prompts, capture=capture, **options)
            return Responses([known[key] for key in keys], seen)
        asked = range(len(prompts)) if capture else missing
        self.answered += len(asked)
        answers = greedy.respond(
            chat_model,
            [prompts[place] for place in asked],
            max_new_tokens=max_new_tokens,
            capture=capture,
            drafts=self._drafts,
            **options,
        )
        fresh = {keys[place]: text for place, text in zip(asked, answers.texts, strict=True)}
        if state:
            self._texts.put(fresh)
        return Responses([(known | fresh)[key] for key in keys], answers.activations)

    def _suggest(self, chat_model: ChatModel, sequences: list[list[int]], replies: list[str | None]) -> None:
        """Make known replies drafts for other states of the model."""
        said = [(sequence, reply) for sequence, reply in zip(sequences, replies, strict=True) if reply]
        tails = encode_texts(chat_model.tokenizer, [reply for _, reply in said])
        for (sequence, _), tail in zip(said, tails, strict=True):
            self._drafts.add(sequence, [*tail, *end_tokens(chat_model)[:1]])
