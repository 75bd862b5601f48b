"""Change the residual stream while a model answers: in batches, with and without the cache, leaving no trace."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from llmva.models.chat_model import ChatModel


@dataclass(frozen=True)
class Pass:
    """One forward pass of a model that is answering.

    Attributes
    ----------
    prompt : (batch, positions) bool tensor
        The tokens of this pass that belong to the prompt, padding left out; all False in a step that decodes
        from the cache.
    generated : (batch, positions) bool tensor
        The tokens of this pass that were generated.
    last : int or None
        The position of the last prompt token, one for all rows since padding is on the left; None where this
        pass holds no prompt.
    """

    prompt: torch.Tensor
    generated: torch.Tensor
    last: int | None


Change = Callable[[torch.Tensor, Pass], torch.Tensor]


@contextmanager
def changed_residuals(
    chat_model: ChatModel, changes: Mapping[int, Change], *, before: Callable[[Pass, dict], None] | None = None
) -> Iterator[None]:
    """Apply changes to the residual stream inside the block; every hook comes off again.

    Parameters
    ----------
    changes : mapping of int to callable
        By site: 0 to L-1 are the inputs of the blocks, L is what the last block writes, before the final
        norm. Each gets the stream, (batch, positions, d), and the pass, and returns the new stream.
    before : callable, optional
        Called at the start of every pass with the pass and the model's keyword arguments. It may run the
        model itself, which is then neither changed nor followed.
    """
    tracker = _Tracker(before)
    handles = [chat_model.model.register_forward_pre_hook(tracker.start, with_kwargs=True)]
    blocks = chat_model.blocks
    try:
        for site, change in changes.items():
            if site == len(blocks):
                handles.append(blocks[-1].register_forward_hook(_output_hook(tracker, change)))
            else:
                handles.append(blocks[site].register_forward_pre_hook(_input_hook(tracker, change), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def add_where(hidden: torch.Tensor, where: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Add a step, (d,) or (batch, d), to the stream at the marked positions."""
    step = step.to(hidden)
    return hidden + where.to(hidden.device)[..., None] * (step if step.ndim == 1 else step[:, None])


class _Tracker:
    """Tells prompts from decoding, also where decoding runs over the whole text again for want of a cache."""

    def __init__(self, before: Callable[[Pass, dict], None] | None) -> None:
        self.before = before
        self.now: Pass | None = None
        self._text: torch.Tensor | None = None
        self._width = 0
        self._inside = False

    def start(self, _, inputs, options) -> None:
        if self._inside:
            return
        tokens = options["input_ids"] if "input_ids" in options else inputs[0]
        cache = options.get("past_key_values")
        cached = cache.get_seq_length() if cache is not None else 0
        if cached:
            nothing = torch.zeros_like(tokens, dtype=torch.bool)
            self._text, self.now = None, Pass(nothing, ~nothing, None)
        else:
            if not self._continues(tokens):
                self._width = tokens.shape[1]
            self._text = tokens
            self.now = self._whole_pass(tokens, options.get("attention_mask"))
        if self.before is not None:
            self._inside = True
            try:
                self.before(self.now, options)
            finally:
                self._inside = False

    def _continues(self, tokens: torch.Tensor) -> bool:
        text = self._text
        return text is not None and tokens.shape == (len(text), text.shape[1] + 1) and tokens[:, :-1].equal(text)

    def _whole_pass(self, tokens: torch.Tensor, mask: torch.Tensor | None) -> Pass:
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask[:, : tokens.shape[1]].bool()
        early = torch.arange(tokens.shape[1], device=tokens.device) < self._width
        return Pass(real & early, real & ~early, self._width - 1)

    @property
    def active(self) -> bool:
        return self.now is not None and not self._inside


def _input_hook(tracker: _Tracker, change: Change):
    def hook(_, inputs, options):
        if not tracker.active:
            return None
        if inputs:
            return (change(inputs[0], tracker.now), *inputs[1:]), options
        return inputs, {**options, "hidden_states": change(options["hidden_states"], tracker.now)}

    return hook


def _output_hook(tracker: _Tracker, change: Change):
    def hook(_, inputs, output):
        if not tracker.active:
            return None
        if isinstance(output, tuple):
            return (change(output[0], tracker.now), *output[1:])
        return change(output, tracker.now)

    return hook
