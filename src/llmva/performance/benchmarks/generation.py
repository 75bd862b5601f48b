"""What capture costs inside generation, and what an edited model costs when it answers."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

import numpy
import torch

from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog
from llmva.engines.greedy import respond
from llmva.models.activations import Capture
from llmva.models.batches import pad
from llmva.models.chat_model import ChatModel, encode_chats
from llmva.models.reading import read_activations
from llmva.performance.timing import Row, ratio_of_seconds, ratio_of_times, timed
from llmva.steering.residual import add_where, changed_residuals
from llmva.steering.runtime.boundary import Boundary
from llmva.steering.runtime.steering import RuntimeSteering
from llmva.steering.runtime.updates import UPDATES
from llmva.study.loop_variants import read_loop, run_llm_va_r
from llmva.study.study import Study

# Where one run is short, it is repeated so many times as often.
MORE = 3
# A ratio of one is told from 0.99 by many runs alone; the original against itself says whether they were enough.
MANY, CONTROL_WITHIN = 12, 0.01


def capture_rows(study: Study, sizes: dict[str, int]) -> Iterator[Row]:
    """Compare generation with capture and without."""
    runs, prompts = MORE * sizes["runs"], study.validation["prompt"].tolist()
    ratio, same = benchmark_capture(study.chat_model, prompts, runs=runs, **study.params.generation.model_dump())
    setting = f"{study.params.slug}, {len(prompts)} prompts, generation with capture over without"
    yield "capture, time", setting, ratio, "<=1.03", runs
    yield "capture, same bits as a separate pass", setting, float(same), ">=1", 1


def serving_rows(study: Study, sizes: dict[str, int]) -> Iterator[Row]:
    """Compare the edited model with the original, and a model without hooks with a steered one."""
    loop = read_loop(run_llm_va_r(study))
    prompts, tokens = study.validation["prompt"].tolist(), study.params.generation.max_new_tokens
    setting = f"{study.params.slug}, {len(prompts)} replies of {tokens} tokens in one batch"
    best, runs = loop.log.at_iteration(loop.choice.best_iteration), MORE * sizes["runs"]
    many = MANY * sizes["runs"]
    options = {"prompts": prompts, "runs": many, "max_new_tokens": tokens}
    control = benchmark_edited(study.chat_model, EditLog(), best, **options)
    yield "original over original, throughput", setting, control, "", many
    name = "edited over original, throughput"
    if abs(control - 1) > CONTROL_WITHIN:
        yield name, f"{setting}; struck, since the control is off by more than that", float("nan"), "", many
    else:
        yield name, setting, benchmark_edited(study.chat_model, best, best, **options), ">=0.99", many
    for name, steered in list_steerings(study.chat_model).items():
        ratio = benchmark_steering(study.chat_model, steered, prompts, runs=runs, max_new_tokens=tokens)
        yield f"no hooks over {name}, throughput", setting, ratio, "", runs


def benchmark_capture(chat_model: ChatModel, prompts: list[str], *, runs: int, **generation: int) -> tuple[float, bool]:
    """Return the time of generation with capture over that without, and whether a separate pass gives the same bits."""
    ratio = ratio_of_times(
        lambda: respond(chat_model, prompts, capture=Capture(), **generation),
        lambda: respond(chat_model, prompts, **generation),
        runs,
    )
    inside = respond(chat_model, prompts, capture=Capture(), **generation).activations
    apart = read_activations(chat_model, prompts, capture=Capture(), batch_size=generation["batch_size"])
    same = all(numpy.array_equal(values, apart.outputs[name]) for name, values in inside.outputs.items())
    return ratio, same


def benchmark_edited(
    chat_model: ChatModel, log: EditLog, other: EditLog, prompts: list[str], *, runs: int, max_new_tokens: int
) -> float:
    """Return the throughput with one log's edits over the original's, replies of the same length in one batch.

    Applying the edits is done once for all replies, so it is no part of the time. Before each run the other log is
    applied, so that the same weights are written whatever is measured.
    """
    with EditedModel(chat_model.writers) as edited:

        def seconds(edits: EditLog) -> float:
            edited.apply(other)
            edited.apply(EditLog())
            edited.apply(edits)
            return timed(lambda: _answer_at_length(chat_model, prompts, max_new_tokens))[0]

        return ratio_of_seconds(lambda: seconds(EditLog()), lambda: seconds(log), runs)


def list_steerings(chat_model: ChatModel) -> dict[str, Callable[[], AbstractContextManager]]:
    """Return what may run beside a model, by name: a vector added at every block, and each update behind one block."""
    width, depth = chat_model.model.config.hidden_size, len(chat_model.blocks)
    step, unit = torch.zeros(width), numpy.eye(1, width, dtype=numpy.float32)[0]
    changes = dict.fromkeys(range(depth), lambda hidden, now: add_where(hidden, now.prompt | now.generated, step))
    # Half of the tokens are moved, more or less, and not far.
    boundary = Boundary(unit, 0.0, 0.1, 0.01, -0.1, 0.01)
    one = {f"{method} behind one block": RuntimeSteering(boundary, method, 1.0, depth // 2) for method in UPDATES}
    return {
        "hooks at every block": lambda: changed_residuals(chat_model, changes),
        **{name: partial(steering.applied, chat_model) for name, steering in one.items()},
    }


def benchmark_steering(
    chat_model: ChatModel,
    steered: Callable[[], AbstractContextManager],
    prompts: list[str],
    *,
    runs: int,
    max_new_tokens: int,
) -> float:
    """Return the throughput without hooks, as an edited model has it, over that of a steered model."""

    def answer_steered() -> None:
        with steered():
            _answer_at_length(chat_model, prompts, max_new_tokens)

    return ratio_of_times(answer_steered, lambda: _answer_at_length(chat_model, prompts, max_new_tokens), runs)


@torch.inference_mode()
def _answer_at_length(chat_model: ChatModel, prompts: list[str], tokens: int) -> None:
    batch = pad(chat_model, encode_chats(chat_model.tokenizer, prompts))
    chat_model.model.generate(**batch, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens)
