"""What a study, or aligning one's own model, will cost: `llmva plan llama-3.1-8b [--gpu H100]`.

No checkpoint is loaded: configurations say enough, and prompts are counted where the data are there. The plan is for
this machine, measured in the type of the study, unless another one is named.
"""

import argparse
import os
from pathlib import Path

import pandas

from llmva.aligned_model.choice import read_preference
from llmva.aligned_model.params import build_params
from llmva.commands.align import SLUGS, make_parser
from llmva.core.errors import InputError, OneLineParser, command, one_of
from llmva.core.params import StudyParams, load_params
from llmva.core.paths import anchored
from llmva.core.runtime_params import is_runtime_slug, load_runtime_params
from llmva.core.store import MANIFEST, is_whole
from llmva.core.vocabulary import WORD_JUDGES
from llmva.models.chat_model import SHARE_FOR_WEIGHTS
from llmva.models.gguf_files import split_gguf
from llmva.models.sources import absolute_source
from llmva.performance.machines import GPUS, Machine, choose_machine, require_machine
from llmva.performance.plan import APART, GUARD_READS, GUARD_WRITES, PROMPT, UNEDITED, Plan
from llmva.performance.runtime_plan import (
    LINE,
    QUESTION,
    RuntimePlan,
    find_runtime_amounts,
    find_runtime_shapes,
)
from llmva.performance.sizes import Shape, count_amounts, expect_amounts, find_shape, find_shapes, is_here
from llmva.performance.slurm import suggest_launch

EPILOG = (
    "For a model of your own, the options of `python -m llmva align` (--data, --judge, --method and others) "
    "are passed on, and the plan is that of `make align` with the same ones."
)

# Parameters from which a plan for a CPU names a GPU.
LARGE = 8e9


@command
def main(arguments: list[str] | None = None) -> None:
    """Print the plan of a study of either kind, or of an alignment of one's own model."""
    parser = OneLineParser(prog="python -m llmva plan", description=__doc__, epilog=EPILOG, allow_abbrev=False)
    about = "a model: the name of a file in or below papermill_params/, or a checkpoint folder or GGUF file"
    parser.add_argument("slug", nargs="?", help=about)
    parser.add_argument("--model", help="the same, as other commands take it")
    here = "this machine, its GPU or else its CPU, measured anew (default)"
    parser.add_argument("--gpu", default="here", help=f"{', '.join(GPUS)}, or here: {here}")
    parser.add_argument("--efficiency", type=float, help="share of the roofline; default: as it was measured")
    options, more = parser.parse_known_args(arguments)
    options.slug = one_of("MODEL", options.slug, options.model)
    if not options.slug:
        raise InputError("MODEL: not given; write `llmva plan MODEL`")
    require_machine(options.gpu, options.efficiency)
    if is_runtime_slug(options.slug):
        _require_no_more(options.slug, more)
        print("\n".join(_plan_runtime(options)))
        return
    params, method, brought = _own_study(options.slug, more) if _is_own(options.slug) else _study(options.slug, more)
    there = brought or anchored(params.data).exists()
    amounts = count_amounts(params) if there else expect_amounts(params)
    model, judge = find_shapes(params)
    machine, source = choose_machine(options.gpu, options.efficiency, model, params.dtype, params.threads)
    print("\n".join(_lines(Plan(params, model, judge, machine, amounts, method), source)))


def _plan_runtime(options: argparse.Namespace) -> list[str]:
    params = load_runtime_params(options.slug)
    model, judge = find_runtime_shapes(params)
    machine, source = choose_machine(options.gpu, options.efficiency, model, params.dtype, params.threads)
    return _runtime_lines(RuntimePlan(params, model, judge, machine, find_runtime_amounts(params)), source)


def _is_own(slug: str) -> bool:
    # A folder, a GGUF file, or a name on the hub: no parameter file is called so.
    return (
        split_gguf(slug) is not None or anchored(slug).is_dir() or Path(slug).is_dir() or not set("/@").isdisjoint(slug)
    )


def _study(slug: str, more: list[str]) -> tuple[StudyParams, str, bool]:
    params = load_params(slug)
    _require_no_more(slug, more)
    return params, "", False


def _require_no_more(slug: str, more: list[str]) -> None:
    if more:
        raise InputError(f"{more[0]}: only of a model of your own; {slug} has its judge and data in its parameter file")


def _own_study(slug: str, more: list[str]) -> tuple[StudyParams, str, bool]:
    """Return the parameters that `make align` will have, its method, and whether its user brings data."""
    model = absolute_source(slug) if Path(slug).exists() or not anchored(slug).is_dir() else str(anchored(slug))
    options = make_parser().parse_args(["--model", model, *more])
    read_preference(options.prefer, SLUGS[options.method])
    # Before their configurations are asked of the hub.
    find_shape(options.model, "model")
    if options.judge not in WORD_JUDGES:
        find_shape(options.judge, "judge")
    return build_params(options, write=False), SLUGS[options.method], bool(options.data)


def _lines(plan: Plan, source: str = "given") -> list[str]:
    return [
        *_subject(plan, source),
        "",
        *_table(plan),
        f"A prompt counts as {PROMPT} tokens, a judgement as {GUARD_READS} and {GUARD_WRITES}; loading is left out.",
        "",
        *_room(plan),
        "",
        f"on a cluster with SLURM: LAUNCH='{suggest_launch(plan)}'",
        "",
        *_here(plan.params.run_folder, [plan.params.model, plan.params.judge_model]),
    ]


def _runtime_lines(plan: RuntimePlan, source: str = "given") -> list[str]:
    params, amounts = plan.params, plan.amounts
    return [
        *_sizes(plan, source, ", steered at run time", "no model judges"),
        f"threats: {amounts.threats}, each with {amounts.train} scenarios to learn from, {amounts.validation} for "
        f"validation and {amounts.test} for test, and {amounts.conversations} conversations of {amounts.turns} turns; "
        f"{amounts.tasks:,} tasks ({_origin(plan)})",
        f"sweep: {len(plan.cells()):,} cells of method, control, position, layer and strength against each threat",
        "",
        *_table(plan),
        f"A prompt counts as {PROMPT} tokens and a reply as {params.generation.max_new_tokens}"
        + (f", a judge's question as {QUESTION} besides and its line as {LINE}" if plan.judge else "")
        + "; loading is left out.",
        "",
        *_room(plan),
        "",
        f"on a cluster with SLURM: LAUNCH='{suggest_launch(plan)}'",
        "",
        *_here(params.run_folder, [params.model, params.judge], "*/*"),
    ]


def _sizes(plan: Plan | RuntimePlan, source: str, about: str, without_judge: str) -> list[str]:
    params, model, judge, machine = plan.params, plan.model, plan.judge, plan.machine
    return [
        f"{params.slug}: {params.model}{about}",
        *_on_cpu(machine, model),
        f"{model.parameters / 1e9:.2f} billion parameters, {model.sublayers} sublayers, {params.dtype}"
        + (f"; judge {judge.parameters / 1e9:.2f} billion, as if in {params.dtype}" if judge else f"; {without_judge}"),
        f"{machine.name}: {machine.flops / 1e12:.3g} TFLOP/s in {machine.dtype}, {machine.bandwidth / 1e12:.3g} TB/s, "
        f"{machine.memory / 1e9:.0f} GB; {machine.efficiency:.0%} of the roofline ({source})",
    ]


def _on_cpu(machine: Machine, model: Shape) -> list[str]:
    if not machine.threads:
        return []
    advice = "; `GPU=H100` plans for a GPU" if model.parameters >= LARGE else ""
    return [
        f"planned for the CPU of this machine (threads: {machine.threads}, as in the study; cores: {os.cpu_count()}), "
        f"measured in {machine.dtype}{advice}"
    ]


def _origin(plan: Plan | RuntimePlan) -> str:
    return f"counted in {plan.params.data}" if plan.amounts.counted else "assumed, since the data are not here yet"


def _subject(plan: Plan, source: str) -> list[str]:
    amounts, about = plan.amounts, f", aligned with {plan.method}" if plan.method else ""
    return [
        *_sizes(plan, source, about, "judged by words"),
        f"{amounts.candidates:,} prompts, {amounts.validation:,} of them for validation and {amounts.test:,} for test; "
        f"{amounts.transfer:,} of unseen sets, {amounts.tasks:,} of tasks ({_origin(plan)})",
    ]


def _table(plan: Plan | RuntimePlan) -> list[str]:
    stages = plan.stages()
    apart = stages.index.str.startswith(APART)
    lines = [f"{'stage':38}{'looks':>7}{'replies':>10}{'M tokens':>10}{'time':>10}"]
    lines += [_row(stage, row) for stage, row in stages[~apart].iterrows()]
    lines.append(_row("in all", stages[~apart].sum().drop("looks")))
    return [*lines, _row(f"besides, {APART}", stages[apart].sum())] if apart.any() else lines


def _row(name: str, row: pandas.Series) -> str:
    looks = f"{row['looks']:.0f}" if "looks" in row else ""
    return f"{name:38}{looks:>7}{row['replies']:10,.0f}{row['tokens'] / 1e6:10.1f}{_time(row['hours']):>10}"


def _room(plan: Plan | RuntimePlan) -> list[str]:
    memory, disk = plan.memory(), plan.disk()
    lines = [f"memory {sum(memory.values()) / 1e9:.1f} GB{_verdict(memory, plan.machine)}"]
    lines += [f"  {name}: {value / 1e9:.1f} GB" for name, value in memory.items() if value]
    if not plan.method:
        lines.append(f"  besides, a copy of the model while notebook 05 fine-tunes it: {memory['model'] / 1e9:.1f} GB")
    lines += ["", f"memory of the CPU {plan.host_memory() / 1e9:.1f} GB, for {plan.held}"]
    lines += ["", f"disk {sum(disk.values()) / 1e9:.1f} GB"]
    return lines + [f"  {name}: {value / 1e9:.2f} GB" for name, value in disk.items()]


def _verdict(memory: dict[str, float], machine: Machine) -> str:
    weights = memory["model"] + memory.get(UNEDITED, 0) + memory["judge"]
    room = SHARE_FOR_WEIGHTS * machine.memory
    if weights > room:
        return (
            f" of {machine.memory / 1e9:.0f}; of the weights {room / 1e9:.0f} GB stay on one device, and the rest goes "
            "to the next one or, far slower, to the CPU: use several devices, or a smaller judge"
        )
    if sum(memory.values()) <= machine.memory:
        return f" of {machine.memory / 1e9:.0f}"
    return f", more than the {machine.memory / 1e9:.0f} there: use several devices, or a smaller judge or batch"


def _here(folder: Path, sources: list[str], *deeper: str) -> list[str]:
    # A damaged stage is computed again.
    found = [path.parent for below in ("*", *deeper) for path in folder.glob(f"{below}/{MANIFEST}")]
    stages = sorted(str(stage.relative_to(folder)) for stage in found if is_whole(stage))
    weights = [source for source in sources if is_here(source)]
    return [
        f"stages finished already: {', '.join(stages) or 'none'}",
        f"weights here already: {', '.join(weights) or 'none'}",
    ]


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


if __name__ == "__main__":
    main()
