"""Token sequences through a model in left-padded batches, longest first, halved where memory runs out."""

import contextlib
from collections.abc import Callable, Sequence

import torch

from llmva.activations import Activations, Capture, recording
from llmva.models import ChatModel
from llmva.progress import progress_bar


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
        order, done = by_length(sequences), 0
        while done < len(order):
            part = order[done : done + batch_size]
            batch = pad_left(chat_model, [sequences[index] for index in part])
            recorder.start(part, _mark(batch["attention_mask"], marks, part))
            fitted = False
            # What a failed pass holds is freed with its traceback, when the handler ends.
            with contextlib.suppress(torch.OutOfMemoryError):
                step(batch, part)
                fitted = True
            if not fitted:
                recorder.drop()
                # Kept for the batches that follow: they would fail again.
                batch_size = half_of(len(part))
                continue
            done += len(part)
            bar.update(len(part))
    bar.close()
    return recorder.collected() if capture and sequences else None


def by_length(sequences: list[list[int]]) -> list[int]:
    """Return the places of sequences in the order in which they are batched."""
    # Longest first: memory runs out at once or never, and padding is least.
    return sorted(range(len(sequences)), key=lambda index: -len(sequences[index]))


def half_of(size: int) -> int:
    """Free what a GPU holds in reserve, and return half of a batch size that did not fit, at least 1.

    Raises
    ------
    torch.OutOfMemoryError
        When it was 1 already.
    """
    if size == 1:
        raise torch.OutOfMemoryError("one prompt alone does not fit into memory; use a smaller model or a CPU")
    torch.cuda.empty_cache()
    return (size + 1) // 2


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
