"""Record what sublayers read and write, through hooks that always come off again."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy
import torch
from torch.utils.hooks import RemovableHandle

from llmva.models.chat_model import ChatModel

FINAL = "final"


@dataclass(frozen=True)
class Capture:
    """What to record of a prompt's forward pass.

    Attributes
    ----------
    outputs, inputs : bool
        Outputs or inputs of every `o_proj` and `down_proj`.
    final : bool
        The residual after the last block, before the final norm.
    blocks : bool, layers : tuple of int, optional
        The residual stream as it enters every block, or those of `layers` where these are given.
    positions : str
        `last`, the last prompt token; `all` of the prompt's tokens; or their `mean`, one row a prompt.
    basis : str
        Where a sublayer's output is read: `module`, as `o_proj` and `down_proj` give it, where the edit is
        exact; or `residual`, as it is added to the residual stream, which is after Gemma-2's post-norms.
    """

    outputs: bool = True
    inputs: bool = False
    final: bool = True
    blocks: bool = False
    layers: tuple[int, ...] | None = None
    positions: Literal["last", "all", "mean"] = "last"
    basis: Literal["module", "residual"] = "module"


@dataclass(frozen=True)
class Activations:
    """Recorded activations, rows in the order of the prompts.

    Attributes
    ----------
    outputs, inputs : dict of str to ndarray
        By sublayer, float32 of shape (rows, d_out) or (rows, d_in). Key `final` of `outputs` is the
        residual after the last block.
    blocks : dict of int to ndarray
        By block, float32 of shape (rows, d): the residual stream as it enters the block.
    lengths : ndarray of int
        Rows per prompt: the recorded tokens for all positions, else ones.
    """

    outputs: dict[str, numpy.ndarray]
    inputs: dict[str, numpy.ndarray]
    blocks: dict[int, numpy.ndarray]
    lengths: numpy.ndarray


@dataclass
class Recorder:
    """Collects activations batch by batch while its hooks are on."""

    capture: Capture
    mask: torch.Tensor | None = None
    # Of each batch the prompts' places, the rows of each, and what was recorded.
    batches: list[tuple[list[int], numpy.ndarray, dict]] = field(default_factory=list)

    def start(self, indices: list[int], attention_mask: torch.Tensor) -> None:
        """Begin a batch: the next forward pass is its prefill and is recorded, later ones are not."""
        self.mask = attention_mask
        self.batches.append((indices, self._lengths(), {}))

    def drop(self) -> None:
        """Forget the batch begun last (it ran out of memory)."""
        self.batches.pop()

    def finish_prefill(self, _, inputs, options, output) -> None:
        """Stop recording until the next batch: the hook at the end of a pass over all of the batch's positions."""
        tokens = options["input_ids"] if "input_ids" in options else inputs[0]
        if self._expects(tokens.shape[1]):
            self.mask = None

    def record(self, site: str, name: str | int, values: torch.Tensor) -> None:
        """Keep one module's tensor of shape (batch, positions, d) as float32 rows."""
        if self._expects(values.shape[1]):
            _, _, recorded = self.batches[-1]
            recorded[site, name] = self._rows(values.detach()).cpu().numpy()

    def collected(self) -> Activations:
        """Return everything recorded, in input order."""
        order, lengths, recorded = zip(*self.batches, strict=True)
        order, lengths = numpy.concatenate(order), numpy.concatenate(lengths)
        rows = numpy.argsort(numpy.repeat(order, lengths), kind="stable")
        sites: dict[str, dict] = {"outputs": {}, "inputs": {}, "blocks": {}}
        for site, name in list(recorded[0]):
            sites[site][name] = numpy.concatenate([batch.pop((site, name)) for batch in recorded])[rows]
        return Activations(**sites, lengths=lengths[numpy.argsort(order)])

    def _expects(self, width: int) -> bool:
        # A steering method may run the model on a longer text inside the prefill: that is not what is recorded.
        return self.mask is not None and width == self.mask.shape[1]

    def _rows(self, values: torch.Tensor) -> torch.Tensor:
        match self.capture.positions:
            case "last":
                return values[:, -1].float()
            case "all":
                return values[self.mask.bool().to(values.device)].float()
        mask = self.mask.to(values)[..., None].float()
        return (values.float() * mask).sum(1) / mask.sum(1).clamp(min=1)

    def _lengths(self) -> numpy.ndarray:
        if self.capture.positions != "all":
            return numpy.ones(len(self.mask), dtype=int)
        return self.mask.sum(1).cpu().numpy()


@contextmanager
def recording(chat_model: ChatModel, capture: Capture) -> Iterator[Recorder]:
    """Attach hooks that record into the yielded recorder, and remove them whatever happens."""
    recorder = Recorder(capture)
    with ExitStack() as hooks:
        for handle in attach_hooks(chat_model, capture, recorder.record):
            hooks.enter_context(handle)
        hooks.enter_context(chat_model.model.register_forward_hook(recorder.finish_prefill, with_kwargs=True))
        yield recorder


def attach_hooks(
    chat_model: ChatModel, capture: Capture, record: Callable[[str, str | int, torch.Tensor], None]
) -> Iterator[RemovableHandle]:
    """Attach the hooks of a capture, one after the other, which call `record(site, name, values)` in every pass."""
    for sublayer in chat_model.sublayers:
        if capture.outputs:
            writer = sublayer.module if capture.basis == "module" else sublayer.contribution
            yield _on_output(writer, partial(record, "outputs", sublayer.name))
        if capture.inputs:
            yield _on_input(sublayer.module, partial(record, "inputs", sublayer.name))
    if capture.final:
        yield _on_output(chat_model.blocks[-1], partial(record, "outputs", FINAL))
    if capture.blocks:
        chosen = range(len(chat_model.blocks)) if capture.layers is None else capture.layers
        for index, block in enumerate(chat_model.blocks):
            if index not in chosen:
                continue
            yield _on_input(block, partial(record, "blocks", index))


def _on_output(module: torch.nn.Module, record: Callable[[torch.Tensor], None]) -> RemovableHandle:
    def hook(_, inputs, output) -> None:
        record(output[0] if isinstance(output, tuple) else output)

    return module.register_forward_hook(hook)


def _on_input(module: torch.nn.Module, record: Callable[[torch.Tensor], None]) -> RemovableHandle:
    def hook(_, inputs, options) -> None:
        record(inputs[0] if inputs else options["hidden_states"])

    return module.register_forward_pre_hook(hook, with_kwargs=True)
