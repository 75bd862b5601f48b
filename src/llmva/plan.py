"""What a study will cost, from configurations alone: `python -m llmva.plan llama-3.1-8b [--gpu H100]`."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pandas
from huggingface_hub import try_to_load_from_cache

from llmva.ablations import NOISE_LEVELS
from llmva.align import make_parser
from llmva.align_params import build_params
from llmva.data_sets.build import TEST_ROWS
from llmva.data_sets.catalogue import SETS
from llmva.errors import InputError, command
from llmva.loops import LOOPS
from llmva.machines import GPUS, Machine, known_efficiency, measure_machine
from llmva.models import SHARE_FOR_WEIGHTS
from llmva.observation import NEUTRAL_TOKENS
from llmva.params import StudyParams, load_params, load_shapes
from llmva.paths import anchored
from llmva.prompts import SAFETY_SETS, TRANSFER_SETS
from llmva.ridge_study import CONTROLS, PARTS
from llmva.shapes import BYTES, Shape, read_shape
from llmva.sources import locate, split_source
from llmva.steering import METHODS
from llmva.steering.fine_tuning import EPOCHS, LEARNING_RATES

# Tokens: a prompt with its template, and what a guard reads (its own instructions, prompt and reply) and writes.
PROMPT, GUARD_READS, GUARD_WRITES = 110, 450, 18
# What `make all` does not run.
APART = "13 parts of LLM-VA-R"
# Further variants of three methods are measured at the end as well.
VARIANTS = 3


def plan_stages(params: StudyParams, model: Shape, judge: Shape | None, machine: Machine) -> pandas.DataFrame:
    """Return what each stage asks of the machine.

    Returns
    -------
    DataFrame
        Indexed by stage: `looks` (how often prompts are answered), `replies`, `tokens` (read and written by the
        model) and `hours`.
    """
    sample = len(SAFETY_SETS) * params.sample_per_dataset
    validation = test = len(SAFETY_SETS) * params.pool_size // 10
    probes = len(params.probe.l_select) * params.probe.iterations
    own = len(params.probe.l_select) * params.ridge.iterations
    tasks = TEST_ROWS * sum(data_set.part == "utility" for data_set in SETS.values())
    turned = sum(degrees > 0 for degrees in params.ablations.degrees)
    others = set(params.ablations.l_select) - set(params.probe.l_select)
    parts = len(PARTS) * len(params.probe.l_select) + len(CONTROLS)
    # The unseen sets are smaller than the most that is asked for: half of it, by rule of thumb.
    final = test + len(TRANSFER_SETS) * params.transfer_size // 2 + tasks
    looks = {
        "00 prompts": (1, len(SAFETY_SETS) * params.candidates),
        "01 angles": (1, sample + validation),
        "03 layer selection": (probes, sample + validation),
        "04 alignment loop": (params.iterations - params.probe.iterations, sample + validation),
        "05 LLM-VA-R": (own, sample + validation),
        "05 released code's loop": (params.iterations, sample + validation),
        "05 tuning of the baselines": ((len(METHODS) - 1) * params.trials, validation),
        "05, 06, 10 test, unseen sets, tasks": (len(METHODS) + len(LOOPS) + VARIANTS, final),
        # A loop with settings of its own looks at the original once more.
        "07 distorted vectors": (turned * params.ablations.draws * (1 + params.probe.iterations), sample + validation),
        "08 further iterations": (max(0, params.ablations.iterations - params.iterations), sample + validation),
        "09 numbers of sublayers": (len(others) * params.probe.iterations, sample + validation),
        "09 tasks": (len(set(params.ablations.l_select)), tasks),
        "11 two judges": (1 + params.probe.iterations, sample + validation),
        "11 noise": (len(NOISE_LEVELS), validation),
        APART: (parts * (1 + params.ridge.iterations), sample + validation),
        f"{APART}, test": (len(PARTS) + len(CONTROLS), final),
    }
    rows = {}
    for stage, (count, prompts) in looks.items():
        seconds = count * _seconds(params, model, judge, machine, prompts)
        tokens = count * prompts * (PROMPT + params.generation.max_new_tokens)
        rows[stage] = {"looks": count, "replies": count * prompts, "tokens": tokens, "hours": seconds / 3600}
    trained = len(LEARNING_RATES) * EPOCHS * len(SAFETY_SETS) * params.pool_size * 8 // 10
    tokens = trained * (PROMPT + params.generation.max_new_tokens)
    # A pass forwards, and backwards at most the work of two.
    seconds = machine.seconds(6 * model.matrices * tokens, 0)
    rows["05 fine-tuning"] = {"looks": 0, "replies": 0, "tokens": tokens, "hours": seconds / 3600}
    return pandas.DataFrame.from_dict(rows, orient="index").rename_axis("stage").sort_index()


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


def plan_host_memory(params: StudyParams, model: Shape) -> float:
    """Return the bytes of the CPU's memory in a round of LLM-VA-R: activations, and the edited weights' originals."""
    read, written = model.heads * model.head_width + model.inner_width, 2 * model.width
    rows = len(SAFETY_SETS) * (params.sample_per_dataset + params.pool_size // 10)
    activations = 4 * model.blocks * (rows * (read + written) + NEUTRAL_TOKENS * read)
    return activations + model.blocks * model.width * read * BYTES[params.dtype]


def plan_disk(params: StudyParams, model: Shape, judge: Shape | None) -> dict[str, float]:
    """Return the bytes that a study leaves on disk."""
    rows = len(SAFETY_SETS) * (params.sample_per_dataset + params.pool_size // 10)
    loops = params.iterations + len(params.probe.l_select) * (params.probe.iterations + params.ridge.iterations)
    vectors = model.sublayers * 2 * (model.width + model.inner_width) * 4
    return {
        "weights, fetched": (model.parameters + (judge.parameters if judge else 0)) * BYTES[params.dtype],
        "activations": rows * (model.sublayers + 1) * model.width * 4,
        "vectors and edits": 2 * loops * vectors,
    }


@command
def main(arguments: list[str] | None = None) -> None:
    """Print the plan of a study."""
    parser = argparse.ArgumentParser(prog="python -m llmva.plan", description=__doc__)
    parser.add_argument("slug", help="a model: the name of a file in papermill_params/, or a checkpoint folder")
    parser.add_argument("--judge", help="of a checkpoint folder: a guard's folder; default: judged by phrases")
    parser.add_argument("--gpu", default="H100", help=f"{', '.join(GPUS)}, or here: this machine, measured anew")
    parser.add_argument("--efficiency", type=float, help="share of the roofline; default: as `--gpu here` measured it")
    options = parser.parse_args(arguments)
    if options.gpu not in {*GPUS, "here"}:
        raise InputError(f"GPU: {options.gpu}: not known; choose {', '.join(GPUS)}, or here")
    if options.efficiency is not None and not 0 < options.efficiency <= 1:
        raise InputError(f"efficiency: is {options.efficiency}; it must be above 0 and at most 1")
    params = _params_of(options.slug, options.judge)
    model, judge = _shapes(params)
    if options.gpu == "here":
        machine = measure_machine(model)
    (efficiency, source) = (options.efficiency, "given") if options.efficiency else known_efficiency()
    if options.gpu != "here":
        machine = Machine(options.gpu, *GPUS[options.gpu], efficiency)
    print("\n".join(_lines(params, model, judge, replace(machine, efficiency=efficiency), source)))


def _params_of(slug: str, judge: str | None) -> StudyParams:
    if not anchored(slug).is_dir():
        return load_params(slug)
    # Of a model of your own, as `make align` has them by default; the prompts are not read.
    given = ["--model", str(anchored(slug)), "--data", "prompts.csv", *(["--judge", judge] if judge else [])]
    return build_params(make_parser().parse_args(given))


def _seconds(params: StudyParams, model: Shape, judge: Shape | None, machine: Machine, prompts: int) -> float:
    new, batch = params.generation.max_new_tokens, params.generation.batch_size
    total = machine.answering_seconds(model, prompts, PROMPT, new, batch, params.dtype)
    if judge is not None:
        total += machine.answering_seconds(judge, prompts, GUARD_READS, GUARD_WRITES, batch, params.dtype)
    # The unedited copy reads every exchange once more.
    return total + machine.seconds(2 * model.matrices * prompts * (PROMPT + new), 0)


def _shapes(params: StudyParams) -> tuple[Shape, Shape | None]:
    known = load_shapes(params.slug)
    model = Shape(**known["shape"]) if "shape" in known else _read_local(params.model, "model")
    if params.judge_model == "phrases":
        return model, None
    return model, Shape(**known["judge_shape"]) if "judge_shape" in known else _read_local(params.judge_model, "judge")


def _read_local(source: str, field: str) -> Shape:
    location, _ = locate(source)
    if not isinstance(location, Path):
        raise InputError(f"{field}: {source}: its shape is not known; add `shape` to the parameter file")
    return read_shape(location)


def _lines(
    params: StudyParams, model: Shape, judge: Shape | None, machine: Machine, source: str = "given"
) -> list[str]:
    stages = plan_stages(params, model, judge, machine)
    memory, disk = plan_memory(params, model, judge), plan_disk(params, model, judge)
    needed = sum(memory.values())
    weights = memory["model"] + memory["unedited copy, which judges the language"] + memory["judge"]
    lines = [
        f"{params.slug}: {params.model}",
        f"{model.parameters / 1e9:.2f} billion parameters, {model.sublayers} sublayers, {params.dtype}"
        + (f"; judge {judge.parameters / 1e9:.2f} billion" if judge else "; judged by phrases"),
        f"{machine.name}: {machine.flops / 1e12:.3g} TFLOP/s, {machine.bandwidth / 1e12:.3g} TB/s, "
        f"{machine.memory / 1e9:.0f} GB; {machine.efficiency:.0%} of the roofline ({source})",
        "",
        f"{'stage':38}{'looks':>7}{'replies':>10}{'M tokens':>10}{'time':>10}",
    ]
    apart = stages[stages.index.str.startswith(APART)].sum()
    stages = stages[~stages.index.str.startswith(APART)]
    for stage, row in stages.iterrows():
        lines.append(f"{stage:38}{row.looks:7.0f}{row.replies:10,.0f}{row.tokens / 1e6:10.1f}{_time(row.hours):>10}")
    total = stages[["replies", "tokens", "hours"]].sum()
    lines.append(f"{'in all':45}{total.replies:10,.0f}{total.tokens / 1e6:10.1f}{_time(total.hours):>10}")
    lines += [
        f"{'besides, ' + APART:38}{apart.looks:7.0f}{apart.replies:10,.0f}{apart.tokens / 1e6:10.1f}"
        f"{_time(apart.hours):>10}",
        f"A prompt counts as {PROMPT} tokens, a judgement as {GUARD_READS} and {GUARD_WRITES}; loading is left out.",
        "",
        f"memory {needed / 1e9:.1f} GB" + _verdict(needed, weights, machine),
    ]
    lines += [f"  {name}: {value / 1e9:.1f} GB" for name, value in memory.items() if value]
    lines.append(f"  besides, a copy of the model while notebook 05 fine-tunes it: {memory['model'] / 1e9:.1f} GB")
    lines += ["", f"memory of the CPU {plan_host_memory(params, model) / 1e9:.1f} GB, for activations and originals"]
    lines += ["", f"disk {sum(disk.values()) / 1e9:.1f} GB"]
    lines += [f"  {name}: {value / 1e9:.2f} GB" for name, value in disk.items()]
    done = sorted(path.parent.name for path in params.run_folder.glob("*/manifest.json"))
    lines += ["", f"stages finished already: {', '.join(done) or 'none'}"]
    there = [source for source in (params.model, params.judge_model) if _is_here(source)]
    return [*lines, f"weights here already: {', '.join(there) or 'none'}"]


def _is_here(source: str) -> bool:
    if anchored(source).is_dir():
        return True
    name, revision = split_source(source)
    if not revision:
        return False

    def cached(file: str) -> Path | None:
        found = try_to_load_from_cache(name, file, revision=revision)
        return Path(found) if isinstance(found, str) else None

    # An interrupted download leaves some of the shards.
    if (index := cached("model.safetensors.index.json")) is None:
        return cached("model.safetensors") is not None
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return all(cached(shard) is not None for shard in shards)


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
