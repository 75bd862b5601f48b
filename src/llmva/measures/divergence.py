"""How far a model has moved from another one on given replies: what damage to other skills looks like."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from llmva.models.chat_model import ChatModel
from llmva.models.likelihood import MAX_LOGITS, exchange_logits

# Logits of the reference that are kept between measurements; above it they are computed each time.
MAX_KEPT_LOGITS = 2**27


@dataclass(eq=False)
class Divergence:
    """KL(reference || changed) on given replies, measured again and again as a model changes.

    Attributes
    ----------
    reference : ChatModel
        The unedited model; it shares its vocabulary with those that are measured.
    prompts, replies : sequence of str
        Replies are read as they stand (teacher forcing), their end included.
    """

    reference: ChatModel
    prompts: Sequence[str]
    replies: Sequence[str]
    batch_size: int
    _kept: list[torch.Tensor] | None = None

    @torch.inference_mode()
    def measure(self, changed: ChatModel) -> float:
        """Return the mean over all tokens of all replies, in nats per token; nan without one."""
        total, tokens = 0.0, 0
        for before, after in zip(self._before(), self._logits(changed), strict=True):
            rows = max(1, MAX_LOGITS // before.shape[-1])
            for first, second in zip(before.split(rows), after.split(rows), strict=True):
                log_before, log_after = first.float().log_softmax(-1), second.to(first.device).float().log_softmax(-1)
                total += float((log_before.exp() * (log_before - log_after)).sum())
            tokens += len(before)
        return total / tokens if tokens else float("nan")

    def _before(self) -> Iterator[torch.Tensor]:
        # Characters are more than tokens, so this errs on the safe side.
        logits = sum(map(len, self.replies)) * self.reference.model.config.get_text_config().vocab_size
        if self._kept is None and logits <= MAX_KEPT_LOGITS:
            self._kept = list(self._logits(self.reference))
        return self._logits(self.reference) if self._kept is None else iter(self._kept)

    def _logits(self, chat_model: ChatModel) -> Iterator[torch.Tensor]:
        options = {"batch_size": self.batch_size, "batched_for": self.reference}
        return exchange_logits(chat_model, self.prompts, self.replies, **options)
