"""The engine of the studies: greedy decoding in which finished replies leave the batch and known ones are confirmed.

It runs transformers' own modules over transformers' own caches, token for token as `generate` does. A reply that was
given to the prompt before is a draft: one pass over all of it tells whether the model as it is now would say it again.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.utils import ModelOutput

from llmva.engines import hugging_face
from llmva.engines.base import Responses
from llmva.engines.drafts import Drafts
from llmva.models.activations import Activations, Capture
from llmva.models.batches import forward, pad, run_batches
from llmva.models.chat_model import ChatModel, encode_with_replies
from llmva.models.state import is_hooked
from llmva.models.templates import decode_replies

# Of what it writes: another one forgets the replies that were remembered.
VERSION = 1
# A batch is made smaller when this share of it or less is still writing: each time its cache is copied.
SHARE_LEFT = 0.75
# Tokens that all prompts must share to be read once: fewer are not worth a pass of their own.
MIN_SHARED = 32
# Drafts confirmed at once, of similar length since padding costs most of the gain; and entries of their logits.
MAX_CONFIRMED, MAX_DRAFT_LOGITS = 64, 2**28


def respond(
    chat_model: ChatModel,
    prompts: Sequence[str | list[dict]],
    *,
    max_new_tokens: int,
    batch_size: int,
    capture: Capture | None = None,
    progress: str | None = None,
    openings: Sequence[str] | None = None,
    drafts: Drafts | None = None,
) -> Responses:
    """Answer prompts or chats greedily; see `Engine`. Replies are looked up in `drafts` and added to them.

    A model whose cache is not made of rows of keys and values is given to `generate`, and so are prompts so long that
    the positions of the tokens before them would be read anew.
    """
    options = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "capture": capture, "progress": progress}
    openings = openings or [""] * len(prompts)
    sequences, _ = encode_with_replies(chat_model.tokenizer, prompts, openings)
    if not _has_rows(chat_model) or _is_stretched(chat_model, max(map(len, sequences), default=0) + max_new_tokens):
        return hugging_face.respond(chat_model, prompts, **options, openings=openings)
    replies, activations = write_replies(chat_model, sequences, **options, drafts=drafts)
    endings = decode_replies(chat_model.tokenizer, replies)
    texts = [(opening + ending).strip() for opening, ending in zip(openings, endings, strict=True)]
    return Responses(texts, activations)


def write_replies(
    chat_model: ChatModel,
    sequences: list[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    capture: Capture | None = None,
    progress: str | None = None,
    drafts: Drafts | None = None,
) -> tuple[list[list[int]], Activations | None]:
    """Return the token ids that a model writes after given ones, with the end token, and what was captured."""
    replies: list[list[int]] = [[]] * len(sequences)
    guesses = Drafts() if drafts is None else drafts
    ends = torch.tensor(hugging_face.end_tokens(chat_model), device=chat_model.device)
    shared = 0 if capture else count_shared(chat_model, sequences, max_new_tokens)

    def write(batch: dict, indices: list[int]) -> None:
        writer = _Writer(chat_model, batch, max_new_tokens, ends, shared)
        for index, reply in zip(indices, writer.write([sequences[index] for index in indices], guesses), strict=True):
            replies[index] = reply

    activations = run_batches(chat_model, sequences, write, batch_size, capture, progress)
    if drafts is not None:
        for sequence, reply in zip(sequences, replies, strict=True):
            drafts.add(sequence, reply)
    return replies, activations


def count_shared(chat_model: ChatModel, sequences: list[list[int]], max_new_tokens: int) -> int:
    """Return how many tokens all sequences begin with that are worth reading once, such as a guard's instructions.

    0 while hooks are on, which tell prompts from replies by the pass; nor where a sliding window is in reach, since
    the padding would then stand between those tokens and the rest.
    """
    if len(sequences) < 2 or is_hooked(chat_model.model):
        return 0
    # All else lies between the first and the last in order.
    first, last = min(sequences), max(sequences)
    shortest = min(map(len, sequences)) - 1
    shared = next((place for place in range(shortest) if first[place] != last[place]), shortest)
    reach = max(map(len, sequences)) + max_new_tokens
    layers = DynamicCache(config=chat_model.model.config).layers
    windows = [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
    return shared if shared >= MIN_SHARED and reach < min(windows, default=reach + 1) else 0


@dataclass
class _Writer:
    """Writes the replies to one batch of prompts."""

    chat_model: ChatModel
    batch: dict[str, torch.Tensor]
    limit: int
    ends: torch.Tensor
    shared: int = 0

    def write(self, sequences: list[list[int]], drafts: Drafts) -> list[list[int]]:
        """Return each row's reply, (up to `limit`) token ids with its end."""
        cache = DynamicCache(config=self.chat_model.model.config)
        first = self._prefill(cache).logits[:, -1].argmax(-1)
        guesses = [drafts.find(sequence, token) for sequence, token in zip(sequences, first.tolist(), strict=True)]
        replies = self._confirm(cache, {row: guess for row, guess in enumerate(guesses) if guess})
        left = [row for row in range(len(sequences)) if row not in replies]
        if left:
            rows = torch.tensor(left)
            part = cache if len(left) == len(sequences) else _select(cache, rows)
            replies |= dict(zip(left, self._decode(part, rows, first[rows]), strict=True))
        return [replies[row] for row in range(len(sequences))]

    def _prefill(self, cache: DynamicCache) -> ModelOutput:
        if not self.shared:
            return forward(self.chat_model, self.batch, cache=cache)
        tokens, mask = self.batch["input_ids"], self.batch["attention_mask"]
        # The longest sequence comes first and has no padding.
        head = {"input_ids": tokens[:1, : self.shared], "attention_mask": mask[:1, : self.shared]}
        forward(self.chat_model, head, cache=cache)
        cache.batch_repeat_interleave(len(tokens))
        # Behind the shared tokens stands the padding, and then the rest.
        rest = mask[:, : tokens.shape[1] - self.shared]
        self.batch["attention_mask"] = torch.cat([torch.ones_like(mask[:, : self.shared]), rest], dim=1)
        return self.chat_model.model(
            input_ids=tokens[:, self.shared :],
            attention_mask=self.batch["attention_mask"],
            position_ids=self.shared + (rest.cumsum(1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )

    def _confirm(self, cache: DynamicCache, guesses: dict[int, tuple[int, ...]]) -> dict[int, list[int]]:
        """Return the drafts, by row, that the model would write to their end."""
        order, confirmed = sorted(guesses, key=lambda row: -len(guesses[row])), {}
        while order:
            width = len(guesses[order[0]]) * self.chat_model.model.config.get_text_config().vocab_size
            rows = order[: max(1, min(MAX_CONFIRMED, MAX_DRAFT_LOGITS // width))]
            confirmed |= self._confirm_some(cache, {row: guesses[row] for row in rows})
            del order[: len(rows)]
        return confirmed

    def _confirm_some(self, cache: DynamicCache, guesses: dict[int, tuple[int, ...]]) -> dict[int, list[int]]:
        rows = torch.tensor(list(guesses))
        block = pad(self.chat_model, list(guesses.values()), "right")
        tokens, is_token = block["input_ids"], block["attention_mask"]
        mask = self.batch["attention_mask"][rows]
        positions = mask.sum(1, keepdim=True) + torch.arange(tokens.shape[1], device=tokens.device)
        part = _select(cache, rows)
        said = self._step(part, tokens, torch.cat([mask, is_token], dim=1), positions).argmax(-1).to(tokens.device)
        agreed = ((said[:, :-1] == tokens[:, 1:]) | (is_token[:, 1:] == 0)).all(1)
        ended = (torch.isin(tokens, self.ends) & is_token.bool()).any(1)
        finished = ended | (is_token.sum(1) == self.limit)
        return {
            row: list(guess)
            for (row, guess), sure in zip(guesses.items(), (agreed & finished).tolist(), strict=True)
            if sure and len(guess) <= self.limit
        }

    def _decode(self, cache: DynamicCache, rows: torch.Tensor, tokens: torch.Tensor) -> list[list[int]]:
        """Write row by row from their first tokens; `cache` holds these rows alone."""
        mask, device = self.batch["attention_mask"][rows], self.chat_model.device
        # Where the last layer is, which may be another device than the first one's.
        tokens = tokens.to(device)
        places, positions = torch.arange(len(rows), device=device), mask.sum(1)
        written = torch.zeros((len(rows), self.limit), dtype=tokens.dtype, device=device)
        lengths = torch.zeros(len(rows), dtype=torch.long, device=device)
        writing = torch.ones(len(rows), dtype=torch.bool, device=device)
        for step in range(self.limit):
            written[places, step] = tokens
            lengths[places] += writing
            writing &= ~torch.isin(tokens, self.ends)
            left = int(writing.sum())
            if not left or step + 1 == self.limit:
                break
            if left <= SHARE_LEFT * len(places):
                kept = writing.nonzero()[:, 0]
                cache = _select(cache, kept.cpu())
                places, positions, mask, tokens, writing = (
                    part[kept] for part in (places, positions, mask, tokens, writing)
                )
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            logits = self._step(cache, tokens[:, None], mask, positions[:, None])
            tokens, positions = logits[:, -1].argmax(-1).to(device), positions + 1
        return [row[:length].tolist() for row, length in zip(written, lengths.tolist(), strict=True)]

    def _step(self, cache, tokens, mask, positions) -> torch.Tensor:
        return self.chat_model.model(
            input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).logits


def _has_rows(chat_model: ChatModel) -> bool:
    layers = DynamicCache(config=chat_model.model.config).layers
    known = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    return known and not getattr(chat_model.model, "_is_stateful", False)


def _is_stretched(chat_model: ChatModel, reach: int) -> bool:
    """Tell whether a sequence of some length has other positions than its beginning had, as of Phi-3 with 128k."""
    config = chat_model.model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    limit = rope.get("original_max_position_embeddings", config.max_position_embeddings)
    return rope.get("rope_type") in ("longrope", "dynamic") and reach > limit


def _select(cache: DynamicCache, rows: torch.Tensor) -> DynamicCache:
    """Return a cache of some rows of another one, which stays as it is.

    Rows are on the CPU, since layers may be on several devices. The cache's `rows` say which of the prefill's rows
    they are: whoever steers may have decided something for each there.
    """
    part = copy.copy(cache)
    part.layers = [copy.copy(layer) for layer in cache.layers]
    part.batch_select_indices(rows)
    part.rows = cache.rows[rows] if hasattr(cache, "rows") else rows
    return part
