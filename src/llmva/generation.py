"""Greedy responses in batches, with activations taken in generation's own prefill."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy
import torch
from transformers import GenerationConfig

from llmva.activations import Activations, Capture, recording
from llmva.models import ChatModel, encode_chats, user_chats
from llmva.progress import progress_bar

# Entries of logits that are taken into float32 at once: a quarter of a gigabyte.
MOST_LOGITS = 2**26


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


def respond(
    chat_model: ChatModel,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    capture: Capture | None = None,
    progress: str | None = None,
    openings: Sequence[str] | None = None,
) -> Responses:
    """Answer single-turn prompts greedily; see `respond_to_chats`."""
    return respond_to_chats(
        chat_model,
        user_chats(prompts),
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        capture=capture,
        progress=progress,
        openings=openings,
    )


def respond_to_chats(
    chat_model: ChatModel,
    chats: Sequence[list[dict]],
    *,
    max_new_tokens: int,
    batch_size: int,
    capture: Capture | None = None,
    progress: str | None = None,
    openings: Sequence[str] | None = None,
) -> Responses:
    """Answer chats greedily, in left-padded batches of similar length.

    Parameters
    ----------
    chats : sequence of message lists
        Each encoded with the model's template, generation prompt included.
    max_new_tokens : int
        Longest reply, in tokens.
    batch_size : int
        Chats per batch; a batch that does not fit into memory is halved, and finished ones are kept.
    capture : Capture, optional
        What to record of the prompts.
    progress : str, optional
        Title of a progress bar.
    openings : sequence of str, optional
        Words that each reply is made to begin with; the texts returned begin with them too.
    """
    sequences = encode_chats(chat_model.tokenizer, chats)
    openings = openings or [""] * len(sequences)
    sequences = [ids + opening for ids, opening in zip(sequences, _encode_replies(chat_model, openings), strict=True)]
    texts: list[str] = [""] * len(sequences)

    def generate(batch: dict, indices: list[int]) -> None:
        tokens = chat_model.model.generate(
            **batch,
            generation_config=_greedy(chat_model, max_new_tokens),
        )
        replies = tokens[:, batch["input_ids"].shape[1] :]
        for index, text in zip(
            indices, chat_model.tokenizer.batch_decode(replies, skip_special_tokens=True), strict=True
        ):
            texts[index] = (openings[index] + text).strip()

    activations = _run(chat_model, sequences, generate, batch_size, capture, progress)
    return Responses(texts, activations)


def read_activations(
    chat_model: ChatModel, prompts: Sequence[str], *, capture: Capture, batch_size: int
) -> Activations:
    """Record the activations of prompts in a plain forward pass, without generating."""
    sequences = encode_chats(chat_model.tokenizer, user_chats(prompts))
    return _run(chat_model, sequences, _forward(chat_model), batch_size, capture, None)


def read_exchange_activations(
    chat_model: ChatModel,
    prompts: Sequence[str],
    replies: Sequence[str],
    *,
    capture: Capture,
    batch_size: int,
    tokens: str = "all",
    most: int | None = None,
) -> Activations:
    """Record the activations of prompts followed by given replies.

    Parameters
    ----------
    tokens : {"all", "reply"}
        Which tokens `capture.positions` speaks of; `last` is the exchange's last token either way.
    most : int, optional
        The largest number of tokens recorded, spread evenly over all of them: with `positions="all"`, the
        largest number of rows.
    """
    heads = encode_chats(chat_model.tokenizer, user_chats(prompts))
    tails = _encode_replies(chat_model, replies)
    marks = [[int(tokens == "all")] * len(head) + [1] * len(tail) for head, tail in zip(heads, tails, strict=True)]
    marks = _thinned(marks, most) if most else marks
    sequences = [head + tail for head, tail in zip(heads, tails, strict=True)]
    return _run(chat_model, sequences, _forward(chat_model), batch_size, capture, None, marks)


@torch.inference_mode()
def exchange_logits(
    chat_model: ChatModel, prompts: Sequence[str], replies: Sequence[str], *, batch_size: int
) -> Iterator[torch.Tensor]:
    """Yield, batch by batch, the logits (tokens, vocabulary) that predict the replies' tokens and their ends.

    The order of batches and rows depends on the lengths alone, so two models' logits can be compared.
    """
    heads = encode_chats(chat_model.tokenizer, user_chats(prompts))
    tails = _encode_replies(chat_model, replies)
    sequences = [head + tail for head, tail in zip(heads, tails, strict=True)]
    order = _by_length(sequences)
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        batch = _pad(chat_model, [sequences[index] for index in indices])
        longest = max(len(tails[index]) for index in indices) + 1
        positions = _positions(batch["attention_mask"])
        logits = chat_model.model(**batch, position_ids=positions, use_cache=False, logits_to_keep=longest).logits
        yield torch.cat([logits[row, longest - len(tails[index]) - 1 :] for row, index in enumerate(indices)])


@torch.inference_mode()
def reply_surprise(
    chat_model: ChatModel, prompts: Sequence[str], replies: Sequence[str], *, batch_size: int
) -> numpy.ndarray:
    """Return how unlikely a model finds given replies.

    Returns
    -------
    ndarray of float64, shape (n,)
        Mean negative log-likelihood, in nats per token, of the reply after its first token; 0 for a
        reply of one token or none. The first token carries the decision to answer, and a changed
        decision is no sign of broken language.
    """
    prompts_ids = encode_chats(chat_model.tokenizer, user_chats(prompts))
    replies_ids = _encode_replies(chat_model, replies)
    surprise = numpy.zeros(len(prompts_ids))
    sequences = [prompt + reply for prompt, reply in zip(prompts_ids, replies_ids, strict=True)]

    def score(batch: dict, indices: list[int]) -> None:
        longest = max(len(replies_ids[index]) for index in indices)
        logits = chat_model.model(
            **batch,
            position_ids=_positions(batch["attention_mask"]),
            use_cache=False,
            logits_to_keep=longest + 1,
        ).logits
        targets = batch["input_ids"][:, -longest:] if longest else batch["input_ids"][:, :0]
        predicting = logits[:, :-1][:, -longest:] if longest else logits[:, :0]
        loss = _cross_entropy(predicting, targets)
        for row, index in enumerate(indices):
            later = len(replies_ids[index]) - 1
            if later > 0:
                surprise[index] = float(loss[row, -later:].mean())

    _run(chat_model, sequences, score, batch_size, None, None)
    return surprise


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the loss of each token, (batch, positions), in float32, a few rows at a time where logits are large."""
    rows = max(1, MOST_LOGITS // max(1, logits[0].numel()))
    parts = [
        torch.nn.functional.cross_entropy(part.float().transpose(1, 2), aims, reduction="none")
        for part, aims in zip(logits.split(rows), targets.split(rows), strict=True)
    ]
    return torch.cat(parts)


@torch.inference_mode()
def _run(
    chat_model: ChatModel,
    sequences: list[list[int]],
    step: Callable[[dict, list[int]], None],
    batch_size: int,
    capture: Capture | None,
    progress: str | None,
    marks: list[list[int]] | None = None,
) -> Activations | None:
    bar = progress_bar(progress, total=len(sequences))
    with recording(chat_model, capture or Capture(outputs=False, final=False)) as recorder:
        order, done = _by_length(sequences), 0
        while done < len(order):
            part = order[done : done + batch_size]
            batch = _pad(chat_model, [sequences[index] for index in part])
            recorder.start(part, _mark(batch["attention_mask"], marks, part))
            try:
                step(batch, part)
            except torch.OutOfMemoryError:
                recorder.drop()
                # Kept for the batches that follow: they would fail again.
                batch_size = _half(len(part))
                continue
            done += len(part)
            bar.update(len(part))
    bar.close()
    return recorder.collected() if capture and sequences else None


def _forward(chat_model: ChatModel) -> Callable[[dict, list[int]], None]:
    def forward(batch: dict, indices: list[int]) -> None:
        chat_model.model(**batch, position_ids=_positions(batch["attention_mask"]), use_cache=False, logits_to_keep=1)

    return forward


def _encode_replies(chat_model: ChatModel, replies: Sequence[str]) -> list[list[int]]:
    return chat_model.tokenizer(list(replies), add_special_tokens=False)["input_ids"] if len(replies) else []


def _thinned(marks: list[list[int]], most: int) -> list[list[int]]:
    total = sum(map(sum, marks))
    kept = set(numpy.linspace(0, total - 1, min(most, total)).astype(int).tolist())
    numbers = iter(range(total))
    return [[int(bool(mark) and next(numbers) in kept) for mark in row] for row in marks]


def _mark(attention_mask: torch.Tensor, marks: list[list[int]] | None, part: list[int]) -> torch.Tensor:
    if marks is None:
        return attention_mask
    width = attention_mask.shape[1]
    rows = [[0] * (width - len(marks[index])) + marks[index] for index in part]
    return torch.tensor(rows, device=attention_mask.device)


def _by_length(sequences: list[list[int]]) -> list[int]:
    # Longest first: memory runs out at once or never, and padding is least.
    return sorted(range(len(sequences)), key=lambda index: -len(sequences[index]))


def _half(size: int) -> int:
    if size == 1:
        raise torch.OutOfMemoryError("one prompt alone does not fit into memory; use a smaller model or a CPU")
    torch.cuda.empty_cache()
    return (size + 1) // 2


def _pad(chat_model: ChatModel, sequences: list[list[int]]) -> dict[str, torch.Tensor]:
    longest = max(map(len, sequences))
    pad = chat_model.tokenizer.pad_token_id
    tokens = torch.tensor([[pad] * (longest - len(sequence)) + sequence for sequence in sequences])
    mask = torch.tensor([[0] * (longest - len(sequence)) + [1] * len(sequence) for sequence in sequences])
    device = chat_model.device
    return {"input_ids": tokens.to(device), "attention_mask": mask.to(device)}


def _positions(attention_mask: torch.Tensor) -> torch.Tensor:
    return (attention_mask.cumsum(1) - 1).clamp(min=0)


def _greedy(chat_model: ChatModel, max_new_tokens: int):
    own = chat_model.model.generation_config
    # Only the ends of sequences are taken over: with a shipped repetition penalty it would not be greedy.
    return GenerationConfig(
        do_sample=False,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        max_new_tokens=max_new_tokens,
        eos_token_id=own.eos_token_id if own.eos_token_id is not None else chat_model.tokenizer.eos_token_id,
        pad_token_id=chat_model.tokenizer.pad_token_id,
    )
