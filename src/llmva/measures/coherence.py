"""Whether steered text is still language: how likely the unsteered, aligned model finds it, and how it repeats."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from llmva.measures.repetition import repeated_share
from llmva.models.chat_model import ChatModel
from llmva.models.likelihood import reply_surprise

# Of a reply, the first so many tokens count (runtime steering v2, section C.3).
FIRST_TOKENS = 50


@dataclass(eq=False)
class CoherenceCheck:
    """How coherent replies are to an unsteered model under the aligned system prompt.

    Attributes
    ----------
    chat_model : ChatModel
        Unsteered while it is asked here.
    """

    chat_model: ChatModel
    batch_size: int

    def __post_init__(self) -> None:
        self._known: dict[tuple, float] = {}

    def losses(self, chats: Sequence[list[dict]], replies: Sequence[str]) -> numpy.ndarray:
        """Return the mean cross-entropy of each reply's first tokens, in nats per token, (n,).

        `chats` hold the aligned system prompts. An empty reply is no language: it counts as a token drawn evenly from
        the vocabulary. Many steerings give the same replies, and each is read once.
        """
        keys = [(*(message["content"] for message in chat), reply) for chat, reply in zip(chats, replies, strict=True)]
        fresh = {key: place for place, key in enumerate(keys) if key not in self._known}
        texts = [replies[place] for place in fresh.values()]
        options = {"batch_size": self.batch_size, "begin": 0, "end": FIRST_TOKENS}
        found = reply_surprise(self.chat_model, [chats[place] for place in fresh.values()], texts, **options)
        nothing = numpy.log(self.chat_model.model.config.get_text_config().vocab_size)
        self._known |= {
            key: float(loss) if text else nothing for key, loss, text in zip(fresh, found, texts, strict=True)
        }
        return numpy.array([self._known[key] for key in keys])

    def gaps(
        self, aligned: Sequence[list[dict]], malicious: Sequence[list[dict]], replies: Sequence[str]
    ) -> numpy.ndarray:
        """Return how much likelier each reply is behind the aligned prompt, in nats per token, (n,)."""
        return self.losses(malicious, replies) - self.losses(aligned, replies)


def coherence(losses: numpy.ndarray, aligned_losses: numpy.ndarray) -> float:
    """Return the ratio of perplexities, aligned to steered: 1 where the text is as likely as the aligned model's own.

    Parameters
    ----------
    losses, aligned_losses : ndarray, shape (n,)
        Mean cross-entropies of each reply (`CoherenceCheck.losses`), steered and of the aligned model itself.
    """
    return float(numpy.exp(aligned_losses.mean() - losses.mean()))


def mean_repetition(replies: Sequence[str]) -> float:
    """Return the mean share of repeated 4-grams within a reply."""
    return float(numpy.mean([repeated_share(reply) for reply in replies]))
