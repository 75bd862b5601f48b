"""What a study, or aligning one's own model, will cost in replies, hours, memory and disk."""

import pandas

from llmva.core.params import StudyParams
from llmva.core.vocabulary import LOOPS
from llmva.method.iteration import NEUTRAL_TOKENS
from llmva.performance.machines import Machine
from llmva.performance.sizes import (
    BYTES,
    Amounts,
    Shape,
)
from llmva.steering.baselines.fine_tuning import EPOCHS, LEARNING_RATES
from llmva.steering.registry import METHODS
from llmva.study.ablations import NOISE_LEVELS
from llmva.study.llm_va_r import CONTROLS, PARTS
from llmva.study.loop_variants import LLM_VA_R

# Tokens: a prompt with its template, and what a guard reads (its own instructions, prompt and reply) and writes.
PROMPT, GUARD_READS, GUARD_WRITES = 110, 450, 18
# What `make all` does not run.
APART = "13 parts of LLM-VA-R"
# Further variants of three methods are measured at the end as well.
VARIANTS = 3


def plan_stages(
    params: StudyParams, model: Shape, judge: Shape | None, machine: Machine, amounts: Amounts
) -> pandas.DataFrame:
    """Return what each stage of a study asks of the machine.

    Returns
    -------
    DataFrame
        Indexed by stage: `looks` (how often prompts are answered), `replies`, `tokens` (read and written by the
        model) and `hours`.
    """
    both, validation, tasks = amounts.sample + amounts.validation, amounts.validation, amounts.tasks
    final = amounts.test + amounts.transfer + tasks
    turned = sum(degrees > 0 for degrees in params.ablations.degrees)
    others = set(params.ablations.l_select) - set(params.probe.l_select)
    parts = len(PARTS) * len(params.probe.l_select) + len(CONTROLS)
    looks = {
        "00 prompts": (1, amounts.candidates),
        "01 angles": (1, both),
        "03 layer selection": (_probes(params), both),
        "04 alignment loop": (params.iterations - params.probe.iterations, both),
        "05 LLM-VA-R": (_rounds_of_r(params), both),
        "05 released code's loop": (params.iterations, both),
        "05 tuning of the baselines": ((len(METHODS) - 1) * params.trials, validation),
        "05, 06, 10 test, unseen sets, tasks": (len(METHODS) + len(LOOPS) + VARIANTS, final),
        # A loop with settings of its own looks at the original once more.
        "07 distorted vectors": (turned * params.ablations.draws * (1 + params.probe.iterations), both),
        "08 further iterations": (max(0, params.ablations.iterations - params.iterations), both),
        "09 numbers of sublayers": (len(others) * params.probe.iterations, both),
        "09 tasks": (len(set(params.ablations.l_select)), tasks),
        "11 two judges": (1 + params.probe.iterations, both),
        "11 noise": (len(NOISE_LEVELS), validation),
        APART: (parts * (1 + params.ridge.iterations), both),
        f"{APART}, test": (len(PARTS) + len(CONTROLS), final),
    }
    table = _cost(looks, params, model, judge, machine)
    tokens = len(LEARNING_RATES) * EPOCHS * amounts.train * (PROMPT + params.generation.max_new_tokens)
    # A pass forwards, and backwards at most the work of two.
    seconds = machine.seconds(6 * model.matrices * tokens, 0)
    table.loc["05 fine-tuning"] = [0, 0, tokens, seconds / 3600]
    return table.sort_index()


def plan_alignment(
    params: StudyParams, model: Shape, judge: Shape | None, machine: Machine, amounts: Amounts, method: str
) -> pandas.DataFrame:
    """Return what each part of `make align` asks of the machine; see `plan_stages`."""
    both = amounts.sample + amounts.validation
    paper = {
        "first look": (1, both),
        "layer selection": (_probes(params), both),
        "alignment loop": (params.iterations - params.probe.iterations, both),
    }
    looks = {
        "prompts": (1, amounts.candidates),
        **({method: (_rounds_of_r(params), both)} if method == LLM_VA_R.name else paper),
        "before and after: test, tasks": (2, amounts.test + amounts.transfer + amounts.tasks),
    }
    return _cost(looks, params, model, judge, machine)


def plan_memory(params: StudyParams, model: Shape, judge: Shape | None) -> dict[str, float]:
    """Return the bytes that must be there at once: the copies of the model, the judge, and a batch's cache."""
    size = BYTES[params.dtype]
    length = PROMPT + params.generation.max_new_tokens
    return {
        "model": model.parameters * size,
        "unedited copy, which judges the language": model.parameters * size,
        "judge": judge.parameters * size if judge else 0,
        "keys and values of a batch": params.generation.batch_size * length * model.cache_bytes(params.dtype),
        # Of every token of a batch's replies, twice: the edited model's and the unedited one's.
        "logits of a batch": 2
        * params.generation.batch_size
        * params.generation.max_new_tokens
        * model.vocabulary
        * size,
    }


def plan_host_memory(params: StudyParams, model: Shape, amounts: Amounts) -> float:
    """Return the bytes of the CPU's memory in a round of LLM-VA-R: activations, and the edited weights' originals."""
    read, written = model.heads * model.head_width + model.inner_width, 2 * model.width
    rows = amounts.sample + amounts.validation
    activations = 4 * model.blocks * (rows * (read + written) + NEUTRAL_TOKENS * read)
    return activations + model.blocks * model.width * read * BYTES[params.dtype]


def plan_disk(
    params: StudyParams, model: Shape, judge: Shape | None, amounts: Amounts, method: str = ""
) -> dict[str, float]:
    """Return the bytes that a study leaves on disk, or that `make align` does with a method."""
    rows, own, paper = amounts.sample + amounts.validation, _rounds_of_r(params), params.iterations + _probes(params)
    loops = {"": own + paper, LLM_VA_R.name: own}.get(method, paper)
    vectors = model.sublayers * 2 * (model.width + model.inner_width) * 4
    return {
        "weights, fetched": (model.parameters + (judge.parameters if judge else 0)) * BYTES[params.dtype],
        "activations": 0 if method == LLM_VA_R.name else rows * (model.sublayers + 1) * model.width * 4,
        "vectors and edits": 2 * loops * vectors,
    }


def _probes(params: StudyParams) -> int:
    return len(params.probe.l_select) * params.probe.iterations


def _rounds_of_r(params: StudyParams) -> int:
    return len(params.probe.l_select) * params.ridge.iterations


def _cost(
    looks: dict[str, tuple[int, int]], params: StudyParams, model: Shape, judge: Shape | None, machine: Machine
) -> pandas.DataFrame:
    rows = {}
    for stage, (count, prompts) in looks.items():
        seconds = count * _seconds(params, model, judge, machine, prompts)
        tokens = count * prompts * (PROMPT + params.generation.max_new_tokens)
        rows[stage] = {"looks": count, "replies": count * prompts, "tokens": tokens, "hours": seconds / 3600}
    return pandas.DataFrame.from_dict(rows, orient="index").rename_axis("stage")


def _seconds(params: StudyParams, model: Shape, judge: Shape | None, machine: Machine, prompts: int) -> float:
    new, batch = params.generation.max_new_tokens, params.generation.batch_size
    total = machine.answering_seconds(model, prompts, PROMPT, new, batch, params.dtype)
    if judge is not None:
        total += machine.answering_seconds(judge, prompts, GUARD_READS, GUARD_WRITES, batch, params.dtype)
    # The unedited copy reads every exchange once more.
    return total + machine.seconds(2 * model.matrices * prompts * (PROMPT + new), 0)
