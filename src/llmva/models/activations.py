"""Record what sublayers read and write, through hooks that always come off again."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy
import torch

from llmva.models.chat_model import ChatModel
from llmva.models.sublayers import Sublayer

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
    blocks : bool
        The residual stream as it enters every block.
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
    batches: list[dict] = field(default_factory=list)
    order: list[list[int]] = field(default_factory=list)

    def start(self, indices: list[int], attention_mask: torch.Tensor) -> None:
        """Begin a batch: the next forward pass is its prefill and is recorded, later ones are not."""
        self.mask = attention_mask
        self.batches.append({})
        self.order.append(indices)

    def drop(self) -> None:
        """Forget the batch begun last (it ran out of memory)."""
        self.batches.pop()
        self.order.pop()

    def finish_prefill(self, width: int) -> None:
        """Stop recording until the next batch, once a pass over all of the batch's positions has ended."""
        if self._expects(width):
            self.mask = None

    def record(self, site: str, name: str | int, values: torch.Tensor) -> None:
        """Keep one module's tensor of shape (batch, positions, d) as float32 rows."""
        if not self._expects(values.shape[1]):
            return
        self.batches[-1][site, name] = self._rows(values.detach()).cpu().numpy()
        self.batches[-1]["lengths"] = self._lengths()

    def collected(self) -> Activations:
        """Return everything recorded, in input order."""
        lengths = numpy.concatenate([batch["lengths"] for batch in self.batches])
        by_prompt = numpy.argsort(numpy.concatenate(self.order))
        starts = numpy.cumsum(lengths) - lengths
        places = numpy.concatenate([numpy.arange(starts[i], starts[i] + lengths[i]) for i in by_prompt])
        sites: dict[str, dict] = {"outputs": {}, "inputs": {}, "blocks": {}}
        for site, name in [key for key in self.batches[0] if key != "lengths"]:
            sites[site][name] = numpy.concatenate([batch.pop((site, name)) for batch in self.batches])[places]
        return Activations(**sites, lengths=lengths[by_prompt])

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
    handles = []
    try:
        for sublayer in chat_model.sublayers:
            handles += _sublayer_hooks(recorder, sublayer)
        if capture.final:
            handles.append(chat_model.blocks[-1].register_forward_hook(_final_hook(recorder)))
        if capture.blocks:
            for index, block in enumerate(chat_model.blocks):
                handles.append(block.register_forward_pre_hook(_block_hook(recorder, index), with_kwargs=True))
        # The decoder's own end marks the end of the prefill.
        handles.append(chat_model.model.register_forward_hook(_end_hook(recorder), with_kwargs=True))
        yield recorder
    finally:
        for handle in handles:
            handle.remove()


def _sublayer_hooks(recorder: Recorder, sublayer: Sublayer) -> list:
    handles, name = [], sublayer.name
    if recorder.capture.outputs:
        writer = sublayer.module if recorder.capture.basis == "module" else sublayer.contribution
        handles.append(writer.register_forward_hook(lambda _, inputs, output: recorder.record("outputs", name, output)))
    if recorder.capture.inputs:
        handles.append(
            sublayer.module.register_forward_hook(lambda _, inputs, output: recorder.record("inputs", name, inputs[0]))
        )
    return handles


def _end_hook(recorder: Recorder):
    def hook(_, inputs, options, output) -> None:
        tokens = options["input_ids"] if "input_ids" in options else inputs[0]
        recorder.finish_prefill(tokens.shape[1])

    return hook


def _final_hook(recorder: Recorder):
    def hook(_, inputs, output) -> None:
        recorder.record("outputs", FINAL, output[0] if isinstance(output, tuple) else output)

    return hook


def _block_hook(recorder: Recorder, index: int):
    def hook(_, inputs, options) -> None:
        recorder.record("blocks", index, inputs[0] if inputs else options["hidden_states"])

    return hook
