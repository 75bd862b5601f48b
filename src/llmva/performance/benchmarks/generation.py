"""What capture costs inside generation, and what an edited model costs when it answers."""

from collections.abc import Iterator

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
    hooked = benchmark_hooks(study.chat_model, prompts, runs=runs, max_new_tokens=tokens)
    yield "no hooks over hooks at every block, throughput", setting, hooked, "", runs


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


def benchmark_hooks(chat_model: ChatModel, prompts: list[str], *, runs: int, max_new_tokens: int) -> float:
    """Return the throughput without hooks, as an edited model has it, over that of a vector added at every block."""
    step = torch.zeros(chat_model.model.config.hidden_size)

    def change(hidden, now):
        return add_where(hidden, now.prompt | now.generated, step)

    def answer_hooked() -> None:
        with changed_residuals(chat_model, dict.fromkeys(range(len(chat_model.blocks)), change)):
            _answer_at_length(chat_model, prompts, max_new_tokens)

    return ratio_of_times(answer_hooked, lambda: _answer_at_length(chat_model, prompts, max_new_tokens), runs)


@torch.inference_mode()
def _answer_at_length(chat_model: ChatModel, prompts: list[str], tokens: int) -> None:
    batch = pad(chat_model, encode_chats(chat_model.tokenizer, prompts))
    chat_model.model.generate(**batch, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens)
