"""Token sequences through a model in left-padded batches, longest first, larger or smaller as memory allows."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache
from transformers.utils import ModelOutput

from llmva.core.errors import InputError
from llmva.core.progress import progress_bar
from llmva.models.activations import Activations, Capture, recording
from llmva.models.chat_model import ChatModel
from llmva.models.headroom import CPU_ALLOCATOR, Headroom, headroom_of

# Of a batch that a CPU only reads, padding included: what so few tokens need stays in its caches.
READ_TOKENS = 2048


@torch.inference_mode()
def run_batches(
    chat_model: ChatModel,
    sequences: list[list[int]],
    step: Callable[[dict, list[int]], object],
    batch_size: int,
    capture: Capture | None = None,
    progress: str | None = None,
    marks: list[list[int]] | None = None,
    reads_only: bool = False,
) -> Activations | None:
    """Take token sequences through a model in left-padded batches of similar length, and record the activations.

    Parameters
    ----------
    step : callable
        Called with each batch (`input_ids` and `attention_mask`) and the places of its rows in `sequences`.
    batch_size : int
        Of the first batch. One that does not fit into memory is halved, and finished ones are kept; on a GPU batches
        double while the memory that they take says that two would fit, but for a capture, which is to give the same
        bits however it is made.
    marks : list of list of int, optional
        1 for each token that `capture.positions` speaks of; by default for all of them.
    reads_only : bool
        Whether nothing is written after the batch's tokens: small batches are then faster on a CPU.
    """
    with (
        progress_bar(progress, total=len(sequences)) as bar,
        recording(chat_model, capture or Capture(outputs=False, final=False)) as recorder,
    ):

        def run(part: list[int]) -> None:
            batch = pad(chat_model, [sequences[index] for index in part])
            marked = (
                _stack([marks[index] for index in part]).to(chat_model.device) if marks else batch["attention_mask"]
            )
            recorder.start(part, marked)
            try:
                step(batch, part)
            except RuntimeError:
                recorder.drop()
                raise
            bar.update(len(part))

        lengths = read_lengths(chat_model, sequences) if reads_only else None
        headroom = None if capture else headroom_of(chat_model.model)
        for_each_batch(by_length(sequences), batch_size, run, lengths, headroom)
    return recorder.collected() if capture and sequences else None


def for_each_batch(
    order: Sequence[int],
    batch_size: int,
    run: Callable[[Sequence[int]], None],
    lengths: Sequence[int] | None = None,
    headroom: Headroom | None = None,
) -> None:
    """Run something on one batch of places after the other; one that does not fit into memory is halved.

    The smaller size is kept for the batches that follow, since they would fail again. Until then they double as long
    as `headroom` says so. For `lengths` see `batch_at`.

    Raises
    ------
    torch.OutOfMemoryError
        When one place alone does not fit.
    """
    done, ceiling = 0, len(order)
    while done < len(order):
        part, fitted = batch_at(order, done, batch_size, lengths), False
        if headroom:
            headroom.start()
        # What a failed batch holds is freed with its traceback, when the handler ends.
        with contextlib.suppress(torch.OutOfMemoryError), memory_errors():
            run(part)
            fitted = True
        if fitted:
            done += len(part)
            if headroom and len(part) == batch_size and 2 * batch_size <= ceiling and headroom.fits_twice():
                batch_size *= 2
            continue
        if len(part) == 1:
            raise torch.OutOfMemoryError("one prompt alone does not fit into memory; use a smaller model or a CPU")
        torch.cuda.empty_cache()
        batch_size = ceiling = (len(part) + 1) // 2


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Give the CPU's want of memory the kind of error that a GPU's has."""
    try:
        yield
    except RuntimeError as error:
        if CPU_ALLOCATOR not in str(error):
            raise
        raise torch.OutOfMemoryError(str(error)) from None


def batch_at(order: Sequence[int], done: int, batch_size: int, lengths: Sequence[int] | None = None) -> Sequence[int]:
    """Return the next batch of an order, longest first, no larger than is read fast (see `read_lengths`)."""
    fast = batch_size if lengths is None else max(1, READ_TOKENS // max(1, lengths[order[done]]))
    return order[done : done + min(batch_size, fast)]


def read_lengths(chat_model: ChatModel, sequences: list[list[int]]) -> list[int] | None:
    """Return the lengths by which batches that are only read are cut; None on a GPU, which wants them large."""
    return [len(sequence) for sequence in sequences] if chat_model.device.type == "cpu" else None


def by_length(sequences: list[list[int]]) -> list[int]:
    """Return the places of sequences in the order in which they are batched."""
    # Longest first: memory runs out at once or never, and padding is least.
    return sorted(range(len(sequences)), key=lambda index: -len(sequences[index]))


def pad(
    chat_model: ChatModel, sequences: list[list[int]], side: Literal["left", "right"] = "left"
) -> dict[str, torch.Tensor]:
    """Return a model's `input_ids` and `attention_mask` for sequences, on its device.

    Raises
    ------
    InputError
        When the tokenizer has given a token that the model has no embedding for.
    """
    tokens = _stack(sequences, chat_model.padding, side)
    if (highest := int(tokens.max())) >= chat_model.vocabulary:
        token = chat_model.tokenizer.convert_ids_to_tokens(highest)
        raise InputError(
            f"{chat_model.source}: tokenizer: {token!r} has id {highest}, and the model {chat_model.vocabulary} "
            "embeddings; resize them (model.resize_token_embeddings), or remove the token"
        )
    mask = _stack([[1] * len(sequence) for sequence in sequences], side=side)
    return {"input_ids": tokens.to(chat_model.device), "attention_mask": mask.to(chat_model.device)}


def forward(
    chat_model: ChatModel, batch: dict, logits_to_keep: int = 1, cache: DynamicCache | None = None
) -> ModelOutput:
    """Return a model's output for a batch padded on the left: the first token behind the padding has position 0.

    An empty cache is filled.
    """
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    options = {"use_cache": cache is not None, "past_key_values": cache, "logits_to_keep": logits_to_keep}
    return chat_model.model(**batch, position_ids=positions, **options)


@torch.inference_mode()
def require_finite_pass(chat_model: ChatModel, sequences: list[list[int]]) -> None:
    """Raise an `InputError` where numbers of a pass leave the range of the weights' type, or become nan."""
    if not forward(chat_model, pad(chat_model, sequences)).logits.isfinite().all():
        dtype = str(chat_model.model.dtype).removeprefix("torch.")
        fix = "take bfloat16 or float32 (dtype), or restore the checkpoint"
        raise InputError(f"{chat_model.source}: its logits are not finite in {dtype}; {fix}")


def _stack(rows: list[list[int]], padding: int = 0, side: Literal["left", "right"] = "left") -> torch.Tensor:
    tensors = [torch.tensor(row) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=padding, padding_side=side)
