"""What every way to generate replies returns."""

from dataclasses import dataclass

from llmva.models.activations import Activations


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
