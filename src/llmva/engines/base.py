"""What every way to generate replies is asked and what it returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llmva.models.activations import Activations, Capture
from llmva.models.chat_model import ChatModel


@dataclass(frozen=True)
class Responses:
    """Replies in the order of the prompts.

    Attributes
    ----------
    texts : list of str
        Without special tokens.
    activations : Activations or None
        Of the prompts, when a capture was asked for.
    """

    texts: list[str]
    activations: Activations | None


class Engine(Protocol):
    """A way to answer prompts or chats greedily with a model as it is edited or steered now."""

    def __call__(
        self,
        chat_model: ChatModel,
        prompts: Sequence[str | list[dict]],
        *,
        max_new_tokens: int,
        batch_size: int,
        capture: Capture | None = None,
        progress: str | None = None,
        openings: Sequence[str] | None = None,
    ) -> Responses:
        """Answer in left-padded batches of similar length.

        Parameters
        ----------
        prompts : sequence of str or of message lists
            Single user turns or whole chats, encoded with the model's template, generation prompt included.
        max_new_tokens : int
            Longest reply, in tokens.
        batch_size : int
            Prompts that are answered at once; fewer where memory runs out, and more where a GPU has room for them. No
            finished reply is lost.
        capture : Capture, optional
            What to record of the prompts while they are answered.
        progress : str, optional
            Title of a progress bar.
        openings : sequence of str, optional
            Words that each reply is made to begin with; the texts returned begin with them too.
        """
