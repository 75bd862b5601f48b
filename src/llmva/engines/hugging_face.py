"""The engine of transformers: `generate` in batches, with activations taken in its own prefill."""

from collections.abc import Sequence

from transformers import GenerationConfig

from llmva.engines.base import Responses
from llmva.models.activations import Capture
from llmva.models.batches import run_batches
from llmva.models.chat_model import ChatModel, encode_with_replies


def respond(
    chat_model: ChatModel,
    prompts: Sequence[str | list[dict]],
    *,
    max_new_tokens: int,
    batch_size: int,
    capture: Capture | None = None,
    progress: str | None = None,
    openings: Sequence[str] | None = None,
) -> Responses:
    """Answer prompts or chats greedily, in left-padded batches of similar length, with the model as it is edited now.

    Parameters
    ----------
    prompts : sequence of str or of message lists
        Single user turns or whole chats, encoded with the model's template, generation prompt included.
    max_new_tokens : int
        Longest reply, in tokens.
    batch_size : int
        Prompts that are answered at once, or fewer where memory runs out; no finished reply is lost.
    capture : Capture, optional
        What to record of the prompts while they are answered.
    progress : str, optional
        Title of a progress bar.
    openings : sequence of str, optional
        Words that each reply is made to begin with; the texts returned begin with them too.
    """
    openings = openings or [""] * len(prompts)
    sequences, _ = encode_with_replies(chat_model.tokenizer, prompts, openings)
    texts = [""] * len(sequences)
    greedy = _greedy(chat_model, max_new_tokens)

    def generate(batch: dict, indices: list[int]) -> None:
        tokens = chat_model.model.generate(**batch, generation_config=greedy)
        replies = tokens[:, batch["input_ids"].shape[1] :]
        endings = chat_model.tokenizer.batch_decode(replies, skip_special_tokens=True)
        for index, ending in zip(indices, endings, strict=True):
            texts[index] = (openings[index] + ending).strip()

    return Responses(texts, run_batches(chat_model, sequences, generate, batch_size, capture, progress))


def _greedy(chat_model: ChatModel, max_new_tokens: int) -> GenerationConfig:
    shipped = chat_model.model.generation_config
    # Only the ends of sequences are taken over: with a shipped repetition penalty it would not be greedy.
    return GenerationConfig(
        do_sample=False,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        max_new_tokens=max_new_tokens,
        eos_token_id=chat_model.tokenizer.eos_token_id if shipped.eos_token_id is None else shipped.eos_token_id,
        pad_token_id=chat_model.tokenizer.pad_token_id,
    )
