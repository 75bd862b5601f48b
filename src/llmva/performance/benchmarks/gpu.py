"""One iteration of the loop at the size of a real model, on a GPU, over the floor that the roofline sets."""

import time
from collections.abc import Iterator
from types import SimpleNamespace

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llmva.core.parallel import map_in_threads
from llmva.core.provenance import random_generator
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog
from llmva.method.control_vectors import ControlVectors, find_control_vectors
from llmva.method.edit import solve_edit
from llmva.models.activations import FINAL, Activations, Capture
from llmva.models.batches import run_batches
from llmva.models.chat_model import ChatModel
from llmva.performance.machines import GPUS, Machine, measure_machine
from llmva.performance.sizes import Shape

# An iteration's sample and validation prompts; tokens read and written by the model and by a guard of the same size.
PROMPTS, TRAIN = 712, 512
MODEL_TOKENS, GUARD_TOKENS = (110, 128), (450, 18)
BATCH = 256


def benchmark_gpu(shape: Shape, machine: Machine, *, device: str = "cuda", scale: float = 1.0) -> dict[str, float]:
    """Run an iteration on a model and a guard of random weights in bfloat16, and return what its stages take.

    Parameters
    ----------
    shape : Shape
        Of both models.
    machine : Machine
        Whose roofline is the floor; its efficiency is left out.
    device : str
        Where they run.
    scale : float
        Of the numbers of prompts and tokens, for a quick look.

    Returns
    -------
    dict
        Seconds of `replies` (activations included), `verdicts`, `vectors` and `edits`; the `floor` of the first two;
        and `ratio`, of all over the floor.
    """
    ideal = Machine(machine.name, machine.flops, machine.bandwidth, machine.memory, 1.0)
    prompts = max(4, round(scale * PROMPTS))
    seconds, floor = {}, 0.0
    for name, tokens, capture in (("replies", MODEL_TOKENS, Capture()), ("verdicts", GUARD_TOKENS, None)):
        read, written = (max(2, round(scale * count)) for count in tokens)
        chat_model = _random_model(shape, device)
        _generate(chat_model, prompts=8, read=read, written=2, capture=capture)
        start = _now(device)
        found = _generate(chat_model, prompts=prompts, read=read, written=written, capture=capture)
        seconds[name] = _now(device) - start
        floor += ideal.answering_seconds(shape, prompts, read, written, min(BATCH, prompts), "bfloat16")
        if capture is not None:
            start = _now(device)
            vectors = _fit(found, prompts * TRAIN // PROMPTS)
            seconds["vectors"] = _now(device) - start
            with EditedModel(chat_model.writers) as edited:
                start = _now(device)
                _edit(edited, vectors)
                seconds["edits"] = _now(device) - start
        del chat_model
    return {**seconds, "floor": floor, "ratio": sum(seconds.values()) / floor}


def _random_model(shape: Shape, device: str) -> ChatModel:
    config = LlamaConfig(
        hidden_size=shape.width,
        intermediate_size=shape.inner_width,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head_width,
        num_hidden_layers=shape.blocks,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
    )
    torch.manual_seed(0)
    # Built where it runs, and in its own type: eight billion float32 weights would not fit beside another model.
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(default)
    return ChatModel("random", model, SimpleNamespace(pad_token_id=0))


def _generate(
    chat_model: ChatModel, *, prompts: int, read: int, written: int, capture: Capture | None
) -> Activations | None:
    vocabulary = chat_model.model.config.vocab_size
    sequences = random_generator(0, "gpu", read).integers(1, vocabulary, size=(prompts, read)).tolist()
    options = {"do_sample": False, "min_new_tokens": written, "max_new_tokens": written, "pad_token_id": 0}

    def step(batch: dict, _: list[int]) -> None:
        chat_model.model.generate(**batch, **options)

    return run_batches(chat_model, sequences, step, BATCH, capture, None)


def _fit(activations: Activations, rows: int) -> dict[str, ControlVectors]:
    labels = random_generator(0, "gpu", "labels").choice([-1, 1], size=(rows, 2)).T

    def fit(name: str) -> ControlVectors:
        features = activations.outputs[name]
        rest = features[rows:]
        return find_control_vectors(features[:rows], *labels, validation=(rest, *labels[:, : len(rest)]))

    names = [name for name in activations.outputs if name != FINAL]
    return map_in_threads(fit, names, torch.get_num_threads())


def _edit(edited: EditedModel, vectors: dict[str, ControlVectors]) -> None:
    steps = []
    for name, own in vectors.items():
        weight, bias = edited.weight(name), edited.bias(name)
        steps.append(solve_edit(weight, bias, sublayer=name, answer=own.answer, benign=own.benign, scale=1.0))
    edited.apply(EditLog().appended(steps))


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def machine_here(shape: Shape) -> Machine:
    """Return the GPU's published peaks where they are known, since what it reaches makes for a lower floor."""
    name = torch.cuda.get_device_name(0)
    known = next((key for key in GPUS if key.partition("-")[0] in name.replace(" ", "")), None)
    return Machine(name, *GPUS[known], 1.0) if known else measure_machine(shape)


def rows_of(found: dict[str, float], setting: str) -> Iterator[tuple[str, str, float, str, int]]:
    """Yield the rows of the performance table: the iteration over its floor, and each stage's seconds."""
    yield "GPU, iteration over the roofline's floor", setting, found["ratio"], "<=4", 1
    for name in ("replies", "verdicts", "vectors", "edits"):
        yield f"GPU, {name}, seconds", setting, found[name], "", 1
