"""The engine of transformers' continuous batching: a reply that ends makes room for the next prompt at once.

Sequences are packed into one row without padding, and keys and values lie in pages. It pays where a GPU answers prompts
and replies of many lengths; `greedy` is held to the same replies, and is faster on a CPU.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager

from llmva.core.errors import InputError
from llmva.core.progress import progress_bar
from llmva.engines.base import Responses
from llmva.engines.hugging_face import end_tokens
from llmva.models.activations import Activations, Capture, attach_hooks
from llmva.models.chat_model import ChatModel, encode_with_replies
from llmva.models.reading import read_activations
from llmva.models.templates import decode_replies

# Seconds between looks at whether the thread that generates is still there.
PATIENCE = 1.0
# On a CPU, where memory does not say how many: tokens of one pass, pages of the cache, and tokens of a page.
CPU_TOKENS, CPU_BLOCKS, CPU_PAGE, LEAST_BLOCKS = 1024, 512, 32, 8


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
    """Answer prompts or chats greedily; see `Engine`.

    What is captured at last tokens is recorded in the same pass; any other capture reads the prompts once more.
    """
    openings = openings or [""] * len(prompts)
    sequences, _ = encode_with_replies(chat_model.tokenizer, prompts, openings)
    together = capture is not None and capture.positions == "last"
    if not sequences:
        return Responses([], None)
    with (
        _manager(chat_model, sequences, max_new_tokens, batch_size, hooked=together) as manager,
        _recording(chat_model, manager, capture if together else None) as recorded,
    ):
        names = manager.add_requests(inputs=sequences, max_new_tokens=max_new_tokens)
        tokens = _wait(manager, names, progress)
    texts = decode_replies(chat_model.tokenizer, [tokens[name] for name in names])
    texts = [(opening + text).strip() for opening, text in zip(openings, texts, strict=True)]
    if capture and not together:
        return Responses(texts, read_activations(chat_model, prompts, capture=capture, batch_size=batch_size))
    return Responses(texts, recorded.collected(names) if together else None)


@contextmanager
def _manager(
    chat_model: ChatModel, sequences: list[list[int]], max_new_tokens: int, batch_size: int, *, hooked: bool
) -> Iterator[ContinuousBatchingManager]:
    """Begin the thread that generates; each call has a cache of its own, so that no edit meets old blocks."""
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=end_tokens(chat_model) or None,
        pad_token_id=chat_model.padding,
    )
    config = ContinuousBatchingConfig(
        max_requests_per_batch=batch_size,
        # The prompts' last tokens are to be computed for each, not taken from another one with the same words.
        allow_block_sharing=not hooked,
        **(_on_cpu(sequences, max_new_tokens) if chat_model.device.type == "cpu" else _on_gpu(hooked)),
    )
    implementation = chat_model.model.config._attn_implementation
    try:
        with chat_model.model.continuous_batching_context_manager(
            generation_config=settings, continuous_batching_config=config, warmup=chat_model.device.type != "cpu"
        ) as manager:
            yield manager
    finally:
        chat_model.model.set_attn_implementation(implementation)


def _on_cpu(sequences: list[list[int]], max_new_tokens: int) -> dict:
    """Return the settings that are otherwise found by a GPU's free memory."""
    pages = sum(-(-(len(sequence) + max_new_tokens) // CPU_PAGE) for sequence in sequences)
    room = {"num_blocks": max(LEAST_BLOCKS, min(CPU_BLOCKS, pages + 1)), "page_size": CPU_PAGE}
    return {"max_batch_tokens": CPU_TOKENS, "use_cuda_graph": (False, False), "use_async_batching": False, **room}


def _on_gpu(hooked: bool) -> dict:
    """Return what hooks need: a graph that is replayed runs none, so only passes of single tokens are captured."""
    return {"use_cuda_graph": (False, True), "use_async_batching": False} if hooked else {}


def _wait(manager: ContinuousBatchingManager, names: list[str], progress: str | None) -> dict[str, list[int]]:
    """Return the tokens of all replies by request, as they finish."""
    tokens: dict[str, list[int]] = {}
    with progress_bar(progress, total=len(names)) as bar:
        while len(tokens) < len(names):
            result = manager.get_result(timeout=PATIENCE)
            if result is not None and result.error is not None:
                raise InputError(f"continuous batching: {result.error}; use another engine, or smaller batches")
            if result is not None and result.is_finished():
                tokens[result.request_id] = result.generated_tokens
                bar.update()
            elif result is None and not manager.is_running():
                raise InputError("continuous batching: stopped by itself; use another engine, or smaller batches")
    return tokens


class _Recorder:
    """Keeps the rows of prompts' last tokens, by request, from passes in which many sequences are packed."""

    def __init__(self, manager: ContinuousBatchingManager) -> None:
        self.manager = manager
        self.rows: dict[tuple[str, str | int], dict[str, numpy.ndarray]] = {}

    def record(self, site: str, name: str | int, values: torch.Tensor) -> None:
        """Keep one module's rows of a pass; `values` are (1, tokens, d)."""
        place, kept = 0, self.rows.setdefault((site, name), {})
        for request in self.manager.batch_processor.inputs_and_outputs.requests_in_batch:
            place += request.query_length
            # The first token that it writes follows the prompt's last one.
            if request.has_new_token and request.state.generated_len() == 0:
                kept[request.state.request_id] = values[0, place - 1].detach().float().cpu().numpy()

    def collected(self, names: list[str]) -> Activations:
        """Return the activations in the order of the requests."""
        sites: dict[str, dict] = {"outputs": {}, "inputs": {}, "blocks": {}}
        for (site, module), kept in self.rows.items():
            sites[site][module] = numpy.stack([kept[name] for name in names])
        return Activations(**sites, lengths=numpy.ones(len(names), dtype=int))


@contextmanager
def _recording(
    chat_model: ChatModel, manager: ContinuousBatchingManager, capture: Capture | None
) -> Iterator[_Recorder]:
    recorder = _Recorder(manager)
    with ExitStack() as hooks:
        for handle in attach_hooks(chat_model, capture, recorder.record) if capture else ():
            hooks.enter_context(handle)
        yield recorder
