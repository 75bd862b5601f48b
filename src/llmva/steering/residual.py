"""Change the residual stream while a model answers: in batches, with and without the cache, leaving no trace."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import torch

from llmva.models.chat_model import ChatModel
from llmva.steering.base import FITTED, NOT_FITTED, UNSTEERED, SteeringMethod, TrainingData, one_class
from llmva.steering.search import alternating, blocks_of, distinct_spans

# Weakest and strongest step at every generated token: it adds up, and steps as long as the residual break the language.
STRENGTHS_AT_EVERY_TOKEN = 0.05, 0.8


class ResidualMethod(SteeringMethod):
    """A method that changes the residual stream, of which strength 0 is the unsteered model.

    A subclass has a name, a version and its range of strengths, and says what it learns (`_fit`), what it tries
    beside strengths (`_cells`) and how it steers (`_steered`).

    Attributes
    ----------
    depth : int
        Number of blocks of the model that it was fitted to.
    weakest, strongest : float
        The sizes of strengths that are tried; they are spaced geometrically.
    variants : tuple of str
        Names of variants, which share the trials; "" alone for a method without any.
    spans : dict of str to pair of float
        Shares of the depth that may be steered; real models differ too much in depth for block numbers.
    """

    hooks = True
    outcome = NOT_FITTED
    variants = ("",)
    spans: Mapping[str, tuple[float, float]] = {"all": (0.0, 1.0)}

    def fit(self, training: TrainingData) -> None:
        """Learn, or let the outcome say why there is nothing to learn from."""
        shortcoming = self._shortcoming(training)
        if shortcoming is None:
            self.depth = len(training.residuals) - 1
            shortcoming = self._fit(training)
        self.outcome = shortcoming or FITTED

    def search_space(self, trials: int) -> list[dict]:
        """Return the unsteered model, then strengths along which all other choices take turns.

        Variants share the trials, and each begins with the unsteered model: all there is where nothing was fitted.
        """
        settings = []
        for number, variant in enumerate(self.variants):
            tried = [UNSTEERED]
            if self.outcome == FITTED:
                share = trials // len(self.variants) + (number < trials % len(self.variants))
                tried = alternating(self._cells(variant), share, strongest=self.strongest, weakest=self.weakest)
            settings += [{"variant": variant, **setting} if variant else dict(setting) for setting in tried]
        return settings

    def applied(self, chat_model: ChatModel, setting: dict) -> AbstractContextManager:
        """Hook the model inside the block; strength 0 sets no hook."""
        return self._steered(chat_model, setting) if setting["strength"] else nullcontext()

    def _shortcoming(self, training: TrainingData) -> str | None:
        """Return why nothing can be learnt, or None; unless a subclass says otherwise, verdicts of one class."""
        return "one class" if one_class(training.answered) else None

    @abstractmethod
    def _fit(self, training: TrainingData) -> str | None:
        """Learn from training prompts without a shortcoming; return what turned out to be missing, or None."""

    def _cells(self, variant: str) -> list[dict]:
        """Return the choices that take turns along a variant's strengths; see `search.alternating`."""
        return self._span_cells()

    @abstractmethod
    def _steered(self, chat_model: ChatModel, setting: dict) -> AbstractContextManager:
        """Return a context that steers with a strength other than 0; see `changed_residuals`."""

    def _span_cells(self) -> list[dict]:
        return [{"span": span} for span in distinct_spans(self.spans, self.depth)]

    def _blocks(self, setting: dict) -> range:
        return blocks_of(self.spans[setting["span"]], self.depth)


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
    rows : (batch,) int tensor or slice
        Which of the prefill's rows these are: those whose replies are finished leave the batch.
    """

    prompt: torch.Tensor
    generated: torch.Tensor
    last: int | None
    rows: torch.Tensor | slice

    @property
    def is_prefill(self) -> bool:
        """Whether this pass ends with the prompt: what is decided here, per prompt, holds for its whole reply."""
        # Without a cache, decoding runs over the whole text again, and its passes end later.
        return self.last == self.prompt.shape[1] - 1


Change = Callable[[torch.Tensor, Pass], torch.Tensor]


@contextmanager
def changed_residuals(
    chat_model: ChatModel,
    changes: Mapping[int, Change],
    *,
    contributions: Change | None = None,
    before: Callable[[Pass, dict], None] | None = None,
) -> Iterator[None]:
    """Apply changes to the residual stream inside the block; every hook comes off again.

    Parameters
    ----------
    changes : mapping of int to callable
        By site: 0 to L-1 are the inputs of the blocks, L is what the last block writes, before the final
        norm. Each gets the stream, (batch, positions, d), and the pass, and returns the new stream.
    contributions : callable, optional
        The same for what every sublayer adds to the stream, in Gemma-2 after its post-norms.
    before : callable, optional
        Called at the start of every pass with the pass and the model's keyword arguments. It may run the
        model itself, which is then neither changed nor followed.
    """
    tracker, blocks = _Tracker(before), chat_model.blocks
    outputs = [(sublayer.contribution, contributions) for sublayer in chat_model.sublayers if contributions]
    outputs += [(blocks[-1], change) for site, change in changes.items() if site == len(blocks)]
    inputs = [(blocks[site], change) for site, change in changes.items() if site < len(blocks)]
    with ExitStack() as hooks:
        hooks.enter_context(chat_model.model.register_forward_pre_hook(tracker.start, with_kwargs=True))
        for block, change in inputs:
            hooks.enter_context(block.register_forward_pre_hook(_input_hook(tracker, change), with_kwargs=True))
        for module, change in outputs:
            hooks.enter_context(module.register_forward_hook(_output_hook(tracker, change)))
        yield


def add_where(hidden: torch.Tensor, where: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Add a step, (d,) or (batch, d), to the stream at the marked positions."""
    step = step.to(hidden)
    return hidden + where.to(hidden.device)[..., None] * (step if step.ndim == 1 else step[:, None])


@dataclass
class _Tracker:
    """Tells prompts from decoding, also where decoding runs over the whole text again for want of a cache."""

    before: Callable[[Pass, dict], None] | None
    now: Pass | None = None
    text: torch.Tensor | None = None
    width: int = 0
    inside: bool = False

    def start(self, _, inputs, options) -> None:
        if self.inside:
            return
        tokens = options["input_ids"] if "input_ids" in options else inputs[0]
        cache = options.get("past_key_values")
        if cache is not None and cache.get_seq_length():
            nothing = torch.zeros_like(tokens, dtype=torch.bool)
            self.text, self.now = None, Pass(nothing, ~nothing, None, getattr(cache, "rows", slice(None)))
        else:
            if not self._continues(tokens):
                self.width = tokens.shape[1]
            self.text = tokens
            self.now = self._whole_pass(tokens, options.get("attention_mask"))
        if self.before is not None:
            self.inside = True
            try:
                self.before(self.now, options)
            finally:
                self.inside = False

    def changed(self, hidden: torch.Tensor, change: Change) -> torch.Tensor:
        return hidden if self.now is None or self.inside else change(hidden, self.now)

    def _continues(self, tokens: torch.Tensor) -> bool:
        text = self.text
        return text is not None and tokens.shape == (len(text), text.shape[1] + 1) and tokens[:, :-1].equal(text)

    def _whole_pass(self, tokens: torch.Tensor, mask: torch.Tensor | None) -> Pass:
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask[:, : tokens.shape[1]].bool()
        early = torch.arange(tokens.shape[1], device=tokens.device) < self.width
        return Pass(real & early, real & ~early, self.width - 1, slice(None))


def _input_hook(tracker: _Tracker, change: Change):
    def hook(_, inputs, options):
        if inputs:
            return (tracker.changed(inputs[0], change), *inputs[1:]), options
        return inputs, {**options, "hidden_states": tracker.changed(options["hidden_states"], change)}

    return hook


def _output_hook(tracker: _Tracker, change: Change):
    def hook(_, inputs, output):
        if isinstance(output, tuple):
            return (tracker.changed(output[0], change), *output[1:])
        return tracker.changed(output, change)

    return hook
