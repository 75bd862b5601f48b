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

    Off the CPU, what other states said to a prompt are drafts. A steered model has no state that could be told; its
    replies are not remembered.

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

    def count(self, asked: int, answered: int) -> None:
        """Count prompts; also those that another process asked for the same study."""
        self.asked += asked
        self.answered += answered

    def respond(
        self,
        chat_model: ChatModel,
        prompts: Sequence[str | list[dict]],
        *,
        max_new_tokens: int,
        capture: Capture | None = None,
        openings: Sequence[str] | None = None,
        **options,
    ) -> Responses:
        """Answer prompts or chats; see `Engine` for the options. Replies with `openings` are not remembered.

        Where every reply is known, prompts are only read for the capture, and not at all without one.
        """
        if openings:
            self.count(len(prompts), len(prompts))
            options |= {"capture": capture, "openings": openings}
            return greedy.respond(chat_model, prompts, max_new_tokens=max_new_tokens, **options)
        sequences, state = encode_chats(chat_model.tokenizer, prompts), model_state(chat_model)
        how = [greedy.VERSION, end_tokens(chat_model), max_new_tokens]
        keys = [digest([state, *how, sequence])[:KEY_LENGTH] for sequence in sequences]
        known = self._texts.get(sorted(set(keys))) if state else {}
        drafts = self._usable_drafts(chat_model)
        if drafts is not None:
            self._suggest(chat_model, sequences, [known.get(key) for key in keys], max_new_tokens)
        missing = [place for place, key in enumerate(keys) if key not in known]
        if capture and not missing:
            self.count(len(prompts), 0)
            seen = read_activations(chat_model, prompts, capture=capture, **options)
            return Responses([known[key] for key in keys], seen)
        asked = range(len(prompts)) if capture else missing
        self.count(len(prompts), len(asked))
        answers = greedy.respond(
            chat_model,
            [prompts[place] for place in asked],
            max_new_tokens=max_new_tokens,
            capture=capture,
            drafts=drafts,
            **options,
        )
        fresh = {keys[place]: text for place, text in zip(asked, answers.texts, strict=True)}
        if state:
            self._texts.put(fresh)
        return Responses([(known | fresh)[key] for key in keys], answers.activations)

    def _usable_drafts(self, chat_model: ChatModel) -> Drafts | None:
        # Where arithmetic is what takes time, a token is as slow to confirm as to write.
        return None if chat_model.device.type == "cpu" else self._drafts

    def _suggest(
        self, chat_model: ChatModel, sequences: list[list[int]], replies: list[str | None], limit: int
    ) -> None:
        """Make known replies drafts for other states of the model."""
        said = [(sequence, reply) for sequence, reply in zip(sequences, replies, strict=True) if reply]
        tails = encode_texts(chat_model.tokenizer, [reply for _, reply in said])
        # Of several end tokens, a chat's is the tokenizer's own.
        ends, own = end_tokens(chat_model), chat_model.tokenizer.eos_token_id
        end = [own] if own in ends else ends[:1]
        for (sequence, _), tail in zip(said, tails, strict=True):
            # A thought has ended already.
            self._drafts.add(sequence, [*tail, *([] if tail[-1:] and tail[-1] in ends else end)][:limit])
