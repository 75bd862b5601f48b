"""What a study will cost, from configurations alone: `python -m llmva.plan llama-3.1-8b [--gpu H100]`."""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import pandas
from huggingface_hub import try_to_load_from_cache

from llmva.data_sets.build import TEST_ROWS
from llmva.data_sets.catalogue import SETS
from llmva.errors import InputError, command
from llmva.loops import LOOPS
from llmva.params import StudyParams, load_params, load_shapes
from llmva.paths import anchored
from llmva.prompts import SAFETY_SETS, TRANSFER_SETS
from llmva.shapes import BYTES, Shape, read_shape
from llmva.sources import locate
from llmva.steering import METHODS

# Peak of dense bfloat16 in FLOP/s, memory bandwidth in bytes/s, and memory in bytes.
GPUS = {
    "A100-80": (312e12, 2.0e12, 80e9),
    "H100": (989e12, 3.35e12, 80e9),
    "H200": (989e12, 4.8e12, 141e9),
    "RTX4090": (165e12, 1.0e12, 24e9),
}
# Of the roofline: what plain transformers reach in large batches, by rule of thumb; it is not measured.
EFFICIENCY = 0.35
# Tokens: a prompt with its template, and what a guard reads (its own instructions, prompt and reply) and writes.
PROMPT, GUARD_READS, GUARD_WRITES = 110, 450, 18
# Further variants of three methods are measured at the end as well.
VARIANTS = 3


@dataclass(frozen=True)
class Machine:
    """A device: its peak in FLOP/s, bandwidth in bytes/s, memory in bytes, and the share of both that is reached."""

    name: str
    flops: float
    bandwidth: float
    memory: float
    efficiency: float

    def seconds(self, flops: float, moved: float) -> float:
        """Return the time of work that computes and moves bytes at once."""
        return max(flops / self.flops, moved / self.bandwidth) / self.efficiency


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
    }
    rows = {}
    for stage, (count, prompts) in looks.items():
        seconds = count * _seconds(params, model, judge, machine, prompts)
        tokens = count * prompts * (PROMPT + params.generation.max_new_tokens)
        rows[stage] = {"looks": count, "replies": count * prompts, "tokens": tokens, "hours": seconds / 3600}
    return pandas.DataFrame.from_dict(rows, orient="index").rename_axis("stage")


def plan_memory(params: StudyParams, model: Shape, judge: Shape | None) -> dict[str, float]:
    """Return the bytes that must be there at once: both copies of the model, the judge, and a batch's cache."""
    size = BYTES[params.dtype]
    length = PROMPT + params.generation.max_new_tokens
    return {
        "model": model.parameters * size,
        "unedited copy, which judges the language": model.parameters * size,
        "judge": judge.parameters * size if judge else 0,
        "keys and values of a batch": params.generation.batch_size * length * model.cache_bytes(params.dtype),
        "logits of a batch": params.generation.batch_size * model.vocabulary * 4,
    }


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


def measure_machine() -> Machine:
    """Measure this machine: a matrix product for its peak, a copy for its bandwidth; a second or two."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (2048, torch.float32)
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    flops = 2 * size**3 / _fastest(lambda: matrix @ matrix, device)
    bandwidth = 2 * matrix.nbytes / _fastest(matrix.clone, device)
    memory = torch.cuda.get_device_properties(0).total_memory if device == "cuda" else _memory()
    return Machine("this machine", flops, bandwidth, memory, EFFICIENCY)


@command
def main(arguments: list[str] | None = None) -> None:
    """Print the plan of a study."""
    parser = argparse.ArgumentParser(prog="python -m llmva.plan", description=__doc__)
    parser.add_argument("slug", help="a model: the name of a file in papermill_params/")
    parser.add_argument("--gpu", default="H100", help=f"{', '.join(GPUS)}, or here: measured on this machine")
    parser.add_argument("--efficiency", type=float, default=EFFICIENCY, help="share of the roofline; default 0.35")
    options = parser.parse_args(arguments)
    if options.gpu not in {*GPUS, "here"}:
        raise InputError(f"GPU: {options.gpu}: not known; choose {', '.join(GPUS)}, or here")
    if not 0 < options.efficiency <= 1:
        raise InputError(f"efficiency: is {options.efficiency}; it must be above 0 and at most 1")
    params = load_params(options.slug)
    model, judge = _shapes(params)
    machine = measure_machine() if options.gpu == "here" else Machine(options.gpu, *GPUS[options.gpu], 1.0)
    machine = Machine(machine.name, machine.flops, machine.bandwidth, machine.memory, options.efficiency)
    print("\n".join(_lines(params, model, judge, machine)))


def _seconds(params: StudyParams, model: Shape, judge: Shape | None, machine: Machine, prompts: int) -> float:
    new, batch, size = params.generation.max_new_tokens, params.generation.batch_size, BYTES[params.dtype]
    total = _answering(machine, model, prompts, PROMPT, new, batch, size, model.cache_bytes(params.dtype))
    if judge is not None:
        cache = judge.cache_bytes(params.dtype)
        total += _answering(machine, judge, prompts, GUARD_READS, GUARD_WRITES, batch, size, cache)
    # The unedited copy reads every exchange once more.
    return total + machine.seconds(2 * model.matrices * prompts * (PROMPT + new), 0)


def _answering(
    machine: Machine, shape: Shape, prompts: int, read: int, written: int, batch: int, size: int, cache: int
) -> float:
    """Return the seconds to read prompts and write replies: the floor of either computing or moving."""
    steps = prompts / batch * written
    moved = size * shape.matrices + batch * (read + written / 2) * cache
    prefill = machine.seconds(2 * shape.matrices * prompts * read, 0)
    return prefill + steps * machine.seconds(2 * shape.matrices * batch, moved)


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


def _lines(params: StudyParams, model: Shape, judge: Shape | None, machine: Machine) -> list[str]:
    stages = plan_stages(params, model, judge, machine)
    memory, disk = plan_memory(params, model, judge), plan_disk(params, model, judge)
    needed = sum(memory.values())
    lines = [
        f"{params.slug}: {params.model}",
        f"{model.parameters / 1e9:.2f} billion parameters, {model.sublayers} sublayers, {params.dtype}"
        + (f"; judge {judge.parameters / 1e9:.2f} billion" if judge else "; judged by phrases"),
        f"{machine.name}: {machine.flops / 1e12:.3g} TFLOP/s, {machine.bandwidth / 1e12:.3g} TB/s, "
        f"{machine.memory / 1e9:.0f} GB; {machine.efficiency:.0%} of the roofline assumed",
        "",
        f"{'stage':38}{'looks':>7}{'replies':>10}{'M tokens':>10}{'time':>10}",
    ]
    for stage, row in stages.iterrows():
        lines.append(f"{stage:38}{row.looks:7.0f}{row.replies:10,.0f}{row.tokens / 1e6:10.1f}{_time(row.hours):>10}")
    total = stages[["replies", "tokens", "hours"]].sum()
    lines.append(f"{'in all':45}{total.replies:10,.0f}{total.tokens / 1e6:10.1f}{_time(total.hours):>10}")
    lines += ["", f"memory {needed / 1e9:.1f} GB" + _verdict(needed, machine)]
    lines += [f"  {name}: {value / 1e9:.1f} GB" for name, value in memory.items() if value]
    lines += ["", f"disk {sum(disk.values()) / 1e9:.1f} GB"]
    lines += [f"  {name}: {value / 1e9:.2f} GB" for name, value in disk.items()]
    done = sorted(path.parent.name for path in params.run_folder.glob("*/manifest.json"))
    lines += ["", f"stages finished already: {', '.join(done) or 'none'}"]
    there = [source for source in (params.model, params.judge_model) if _is_here(source)]
    return [*lines, f"weights here already: {', '.join(there) or 'none'}"]


def _is_here(source: str) -> bool:
    if anchored(source).is_dir():
        return True
    name, _, revision = source.partition("@")
    return bool(revision) and isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)


def _verdict(needed: float, machine: Machine) -> str:
    if needed <= machine.memory:
        return f" of {machine.memory / 1e9:.0f}"
    return f", more than the {machine.memory / 1e9:.0f} there: use several devices, or a smaller judge or batch"


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


def _fastest(work, device: str, repeats: int = 5) -> float:
    import torch

    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    # The first run warms up.
    return min(times[1:])


def _memory() -> float:
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


if __name__ == "__main__":
    main()
