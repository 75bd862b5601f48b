"""What a study, or aligning one's own model, will cost: `python -m llmva.performance.plan llama-3.1-8b [--gpu H100]`.

No model is loaded: configurations say enough, and prompts are counted where the data are there.
"""

from pathlib import Path

import pandas

from llmva.align import SLUGS, make_parser
from llmva.aligned_model.params import build_params
from llmva.core.errors import InputError, OneLineParser, command
from llmva.core.params import StudyParams, load_params
from llmva.core.paths import anchored
from llmva.core.store import is_whole
from llmva.method.iteration import NEUTRAL_TOKENS
from llmva.models.chat_model import SHARE_FOR_WEIGHTS
from llmva.performance.machines import GPUS, Machine, choose_machine, require_machine
from llmva.performance.sizes import (
    BYTES,
    Amounts,
    Shape,
    count_amounts,
    expect_amounts,
    find_shape,
    find_shapes,
    is_here,
)
from llmva.steering import METHODS
from llmva.steering.baselines.fine_tuning import EPOCHS, LEARNING_RATES
from llmva.study.ablations import NOISE_LEVELS
from llmva.study.llm_va_r import CONTROLS, PARTS
from llmva.study.loop_variants import LLM_VA_R, LOOPS

# Tokens: a prompt with its template, and what a guard reads (its own instructions, prompt and reply) and writes.
PROMPT, GUARD_READS, GUARD_WRITES = 110, 450, 18
# What `make all` does not run.
APART = "13 parts of LLM-VA-R"
OWN = (
    "Of a model of your own the options of `python -m llmva.align` pass on (--data, --judge, --method and others), and "
    "the plan is that of `make align` with the same ones."
)
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


@command
def main(arguments: list[str] | None = None) -> None:
    """Print the plan of a study, or of an alignment of one's own model."""
    parser = OneLineParser(prog="python -m llmva.performance.plan", description=__doc__, epilog=OWN, allow_abbrev=False)
    parser.add_argument("slug", help="a model: the name of a file in papermill_params/, or a checkpoint folder")
    parser.add_argument("--gpu", default="H100", help=f"{', '.join(GPUS)}, or here: this machine, measured anew")
    parser.add_argument("--efficiency", type=float, help="share of the roofline; default: as `--gpu here` measured it")
    options, more = parser.parse_known_args(arguments)
    require_machine(options.gpu, options.efficiency)
    params, method, brought = _own_study(options.slug, more) if _is_own(options.slug) else _study(options.slug, more)
    there = brought or anchored(params.data).exists()
    amounts = count_amounts(params) if there else expect_amounts(params)
    model, judge = find_shapes(params)
    machine, source = choose_machine(options.gpu, options.efficiency, model)
    print("\n".join(_lines(params, model, judge, machine, amounts, method, source)))


def _is_own(slug: str) -> bool:
    # A folder, or a name on the hub: no parameter file is called so.
    return anchored(slug).is_dir() or Path(slug).is_dir() or not set("/@").isdisjoint(slug)


def _study(slug: str, more: list[str]) -> tuple[StudyParams, str, bool]:
    params = load_params(slug)
    if more:
        raise InputError(f"{more[0]}: only of a model of your own; {slug} has its judge and data in its parameter file")
    return params, "", False


def _own_study(slug: str, more: list[str]) -> tuple[StudyParams, str, bool]:
    """Return the parameters that `make align` will have, its method, and whether its user brings data."""
    model = slug if Path(slug).is_dir() or not anchored(slug).is_dir() else str(anchored(slug))
    options = make_parser().parse_args(["--model", model, *more])
    # Before their configurations are asked of the hub.
    find_shape(options.model, "MODEL")
    if options.judge != "phrases":
        find_shape(options.judge, "JUDGE")
    return build_params(options, write=False), SLUGS[options.method], bool(options.data)


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


def _lines(
    params: StudyParams,
    model: Shape,
    judge: Shape | None,
    machine: Machine,
    amounts: Amounts,
    method: str = "",
    source: str = "given",
) -> list[str]:
    memory, disk = plan_memory(params, model, judge), plan_disk(params, model, judge, amounts, method)
    needed = sum(memory.values())
    weights = memory["model"] + memory["unedited copy, which judges the language"] + memory["judge"]
    lines = [
        f"{params.slug}: {params.model}" + (f", aligned with {method}" if method else ""),
        f"{model.parameters / 1e9:.2f} billion parameters, {model.sublayers} sublayers, {params.dtype}"
        + (f"; judge {judge.parameters / 1e9:.2f} billion" if judge else "; judged by phrases"),
        f"{machine.name}: {machine.flops / 1e12:.3g} TFLOP/s, {machine.bandwidth / 1e12:.3g} TB/s, "
        f"{machine.memory / 1e9:.0f} GB; {machine.efficiency:.0%} of the roofline ({source})",
        f"{amounts.candidates:,} prompts, {amounts.validation:,} of them for validation and {amounts.test:,} for test; "
        f"{amounts.transfer:,} of unseen sets, {amounts.tasks:,} of tasks ("
        + (f"counted in {params.data})" if amounts.counted else "assumed, since the data are not here yet)"),
        "",
        *_table(params, model, judge, machine, amounts, method),
        f"A prompt counts as {PROMPT} tokens, a judgement as {GUARD_READS} and {GUARD_WRITES}; loading is left out.",
        "",
        f"memory {needed / 1e9:.1f} GB" + _verdict(needed, weights, machine),
        *(f"  {name}: {value / 1e9:.1f} GB" for name, value in memory.items() if value),
    ]
    if not method:
        lines.append(f"  besides, a copy of the model while notebook 05 fine-tunes it: {memory['model'] / 1e9:.1f} GB")
    host = plan_host_memory(params, model, amounts)
    lines += ["", f"memory of the CPU {host / 1e9:.1f} GB, for activations and originals"]
    lines += ["", f"disk {sum(disk.values()) / 1e9:.1f} GB"]
    lines += [f"  {name}: {value / 1e9:.2f} GB" for name, value in disk.items()]
    lines += ["", f"stages finished already: {', '.join(_finished(params)) or 'none'}"]
    there = [source for source in (params.model, params.judge_model) if is_here(source)]
    return [*lines, f"weights here already: {', '.join(there) or 'none'}"]


def _table(
    params: StudyParams, model: Shape, judge: Shape | None, machine: Machine, amounts: Amounts, method: str
) -> list[str]:
    if method:
        stages = plan_alignment(params, model, judge, machine, amounts, method)
    else:
        stages = plan_stages(params, model, judge, machine, amounts)
    apart = stages.index.str.startswith(APART)
    lines = [f"{'stage':38}{'looks':>7}{'replies':>10}{'M tokens':>10}{'time':>10}"]
    lines += [_row(stage, row) for stage, row in stages[~apart].iterrows()]
    lines.append(_row("in all", stages[~apart].sum().drop("looks")))
    return [*lines, _row(f"besides, {APART}", stages[apart].sum())] if apart.any() else lines


def _row(name: str, row: pandas.Series) -> str:
    looks = f"{row['looks']:.0f}" if "looks" in row else ""
    return f"{name:38}{looks:>7}{row['replies']:10,.0f}{row['tokens'] / 1e6:10.1f}{_time(row['hours']):>10}"


def _finished(params: StudyParams) -> list[str]:
    # A damaged stage is computed again.
    return sorted(path.parent.name for path in params.run_folder.glob("*/manifest.json") if is_whole(path.parent))


def _verdict(needed: float, weights: float, machine: Machine) -> str:
    room = SHARE_FOR_WEIGHTS * machine.memory
    if weights > room:
        return (
            f" of {machine.memory / 1e9:.0f}; of the weights {room / 1e9:.0f} GB stay on one device, and the rest goes "
            "to the next one or, far slower, to the CPU: use several devices, or a smaller judge"
        )
    if needed <= machine.memory:
        return f" of {machine.memory / 1e9:.0f}"
    return f", more than the {machine.memory / 1e9:.0f} there: use several devices, or a smaller judge or batch"


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


if __name__ == "__main__":
    main()
