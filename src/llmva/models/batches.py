"""Token sequences through a model in left-padded batches, longest first, halved where memory runs out."""

import contextlib
from collections.abc import Callable, Sequence

import torch

from llmva.core.progress import progress_bar
from llmva.models.activations import Activations, Capture, recording
from llmva.models.chat_model import ChatModel


@torch.inference_mode()
def run_batches(
    chat_model: ChatModel,
    sequences: list[list[int]],
    step: Callable[[dict, list[int]], None],
    batch_size: int,
    capture: Capture | None,
    progress: str | None,
    marks: list[list[int]] | None = None,
) -> Activations | None:
    """Take token sequences through a model in left-padded batches of similar length, and record the activations.

    Parameters
    ----------
    step : callable
        Called with each batch (`input_ids` and `attention_mask`) and the places of its rows in `sequences`.
    batch_size : int
        A batch that does not fit into memory is halved, and finished ones are kept.
    marks : list of list of int, optional
        1 for each token that `capture.positions` speaks of; by default for all of them.
    """
    bar = progress_bar(progress, total=len(sequences))
    with recording(chat_model, capture or Capture(outputs=False, final=False)) as recorder:

        def run(part: list[int]) -> None:
            batch = pad_left(chat_model, [sequences[index] for index in part])
            recorder.start(part, _mark(batch["attention_mask"], marks, part))
            try:
                step(batch, part)
            except torch.OutOfMemoryError:
                recorder.drop()
                raise
            bar.update(len(part))

        for_each_batch(by_length(sequences), batch_size, run)
    bar.close()
    return recorder.collected() if capture and sequences else None


def for_each_batch(order: Sequence[int], batch_size: int, run: Callable[[Sequence[int]], None]) -> None:
    """Run something on one batch of places after the other; one that does not fit into memory is halved.

    The smaller size is kept for the batches that follow, since they would fail again.

    Raises
    ------
    torch.OutOfMemoryError
        When one place alone does not fit.
    """
    done = 0
    while done < len(order):
        part, fitted = order[done : done + batch_size], False
        # What a failed batch holds is freed with its traceback, when the handler ends.
        with contextlib.suppress(torch.OutOfMemoryError):
            run(part)
            fitted = True
        if fitted:
            done += len(part)
        else:
            batch_size = _half(len(part))


def by_length(sequences: list[list[int]]) -> list[int]:
    """Return the places of sequences in the order in which they are batched."""
    # Longest first: memory runs out at once or never, and padding is least.
    return sorted(range(len(sequences)), key=lambda index: -len(sequences[index]))


def pad_left(chat_model: ChatModel, sequences: list[list[int]]) -> dict[str, torch.Tensor]:
    """Return a model's inputs for sequences, padded on the left and on its device."""
    longest = max(map(len, sequences))
    pad = chat_model.tokenizer.pad_token_id
    tokens = torch.tensor([[pad] * (longest - len(sequence)) + sequence for sequence in sequences])
    mask = torch.tensor([[0] * (longest - len(sequence)) + [1] * len(sequence) for sequence in sequences])
    device = chat_model.device
    return {"input_ids": tokens.to(device), "attention_mask": mask.to(device)}


def token_positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Return each token's position, (batch, tokens): the first one behind the padding has 0."""
    return (attention_mask.cumsum(1) - 1).clamp(min=0)


def encode_replies(chat_model: ChatModel, replies: Sequence[str]) -> list[list[int]]:
    """Return the token ids of replies, as they follow a templated prompt."""
    return chat_model.tokenizer(list(replies), add_special_tokens=False)["input_ids"] if len(replies) else []


def _mark(attention_mask: torch.Tensor, marks: list[list[int]] | None, part: list[int]) -> torch.Tensor:
    if marks is None:
        return attention_mask
    width = attention_mask.shape[1]
    rows = [[0] * (width - len(marks[index])) + marks[index] for index in part]
    return torch.tensor(rows, device=attention_mask.device)


def _half(size: int) -> int:
    if size == 1:
        raise torch.OutOfMemoryError("one prompt alone does not fit into memory; use a smaller model or a CPU")
    torch.cuda.empty_cache()
    return (size + 1) // 2
