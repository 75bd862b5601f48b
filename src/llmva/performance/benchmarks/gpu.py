"""One iteration of the loop at the size of a real model, on a GPU, over the floor that the roofline sets."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import torch
from transformers import PreTrainedModel

from llmva.core.parallel import map_in_threads
from llmva.core.params import load_shapes
from llmva.core.provenance import random_generator
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog
from llmva.engines import greedy
from llmva.method.control_vectors import ControlVectors, find_control_vectors
from llmva.method.edit import solve_edit
from llmva.models.activations import FINAL, Activations, Capture
from llmva.models.chat_model import ChatModel
from llmva.performance.machines import GPUS, Machine, measure_machine
from llmva.performance.plan import GUARD_READS, GUARD_WRITES, PROMPT
from llmva.performance.sizes import Shape, random_model
from llmva.performance.timing import Row, timed
from llmva.study.study import Study

# An iteration's sample and validation prompts; tokens read and written by the model and by a guard of the same size;
# and how many of those that the guard reads are its own instructions, with which all its prompts begin.
PROMPTS, TRAIN = 712, 512
MODEL_TOKENS, GUARD_TOKENS, GUARD_HEAD = (PROMPT, 128), (GUARD_READS, GUARD_WRITES), 330
BATCH = 256
UNSHARED = "verdicts, instructions read for every prompt"


def gpu_rows(study: Study, sizes: dict[str, int]) -> Iterator[Row]:
    """Set an iteration at the size of a real model against the GPU's roofline; without a GPU, say so."""
    name = "GPU, iteration over the roofline's floor"
    setting = "8B-shaped model and guard of random weights, bfloat16, 512 + 200 prompts of 110 tokens, 128 new ones"
    if not torch.cuda.is_available():
        yield name, f"{setting}: no GPU was to be had", float("nan"), "<=4", 0
        return
    shape = Shape(**load_shapes("llama-3.1-8b")["shape"])
    measured = benchmark_gpu(shape, machine_here(shape))
    yield name, setting, measured["ratio"], "<=4", 1
    for stage in ("replies", "verdicts", "vectors", "edits"):
        yield f"GPU, {stage}, seconds", setting, measured[stage], "", 1
    ratio = measured[UNSHARED] / measured["verdicts"]
    yield "GPU, guard's instructions read for every prompt over once, time", setting, ratio, "", 1


def benchmark_gpu(shape: Shape, machine: Machine, *, device: str = "cuda", scale: float = 1.0) -> dict[str, float]:
    """Run an iteration on a model and a guard of random weights in bfloat16, both of one shape.

    Returns the seconds of `replies` (activations included), `verdicts`, `vectors` and `edits`; the `floor` of the
    first two, by the machine's roofline without its efficiency and with the guard's instructions read for each
    prompt; and `ratio`, of all over the floor. `scale` changes the numbers of prompts and tokens, for a quick look.
    """
    ideal, prompts = replace(machine, efficiency=1.0), max(4, round(scale * PROMPTS))
    seconds, floor = {}, 0.0
    for stage, tokens in {"replies": MODEL_TOKENS, "verdicts": GUARD_TOKENS, UNSHARED: GUARD_TOKENS}.items():
        read, written = (max(2, round(scale * count)) for count in tokens)
        seconds |= _time_stage(stage, random_model(shape, "bfloat16", device), prompts, read, written)
        if stage != UNSHARED:
            floor += ideal.answering_seconds(shape, prompts, read, written, min(BATCH, prompts), "bfloat16")
    counted = sum(taken for stage, taken in seconds.items() if stage != UNSHARED)
    return {**seconds, "floor": floor, "ratio": counted / floor}


def machine_here(shape: Shape) -> Machine:
    """Return the GPU's published peaks where they are known, since what it reaches makes for a lower floor."""
    name = torch.cuda.get_device_name(0)
    known = next((key for key in GPUS if key.partition("-")[0] in name.replace(" ", "")), None)
    return Machine(name, *GPUS[known], 1.0) if known else measure_machine(shape, "bfloat16", torch.get_num_threads())


def _time_stage(stage: str, model: PreTrainedModel, prompts: int, read: int, written: int) -> dict[str, float]:
    """Return the seconds of a stage, and, of replies, those of the vectors and edits that follow from them."""
    heads = {"replies": None, "verdicts": round(read * GUARD_HEAD / GUARD_READS), UNSHARED: 0}
    # Without an end token every reply has its full length.
    chat_model = ChatModel("random", model, SimpleNamespace(pad_token_id=0, eos_token_id=None))
    model.generation_config.eos_token_id = None
    write = partial(_write, chat_model, prompts=prompts, read=read, head=heads[stage])
    # A GPU chooses its kernels at the first batch of a size.
    write(written=2)
    seconds, activations = timed(lambda: write(written=written))
    if activations is None:
        return {stage: seconds}
    fitting, vectors = timed(lambda: _fit(activations, prompts * TRAIN // PROMPTS))
    with EditedModel(chat_model.writers) as edited:
        editing, _ = timed(lambda: _edit(edited, vectors))
    return {stage: seconds, "vectors": fitting, "edits": editing}


def _write(chat_model: ChatModel, *, prompts: int, read: int, written: int, head: int | None) -> Activations | None:
    """Answer random prompts that share a head, with capture where none is given."""
    vocabulary = chat_model.model.config.get_text_config().vocab_size
    sequences = random_generator(0, "gpu", read).integers(1, vocabulary, size=(prompts, read))
    sequences[:, : head or 0] = sequences[0, : head or 0]
    options = {"max_new_tokens": written, "batch_size": BATCH, "capture": Capture() if head is None else None}
    return greedy.write_replies(chat_model, sequences.tolist(), **options)[1]


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
    for name, fit in vectors.items():
        weight, bias = edited.weight(name), edited.bias(name)
        steps.append(solve_edit(weight, bias, sublayer=name, answer=fit.answer, benign=fit.benign, scale=1.0))
    edited.apply(EditLog().appended(steps))
