"""What a machine can do: published peaks of GPUs, this machine's own, and the share that plain generation reaches."""

import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch.nn.functional import linear

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.paths import write_atomically
from llmva.performance.sizes import BYTES, Shape, random_model
from llmva.performance.timing import fastest

# Peak of dense bfloat16 in FLOP/s, memory bandwidth in bytes/s, and memory in bytes.
GPUS = {
    "A100-80": (312e12, 2.0e12, 80e9),
    "H100": (989e12, 3.35e12, 80e9),
    "H200": (989e12, 4.8e12, 141e9),
    "RTX4090": (165e12, 1.0e12, 24e9),
}
# Of the roofline, by rule of thumb, until it was measured.
EFFICIENCY = 0.35
# The trial: tokens read and written by each prompt of a batch as large as a study's, or a smaller one where the
# roofline alone would ask for more than these seconds.
TRIALS = {"cpu": (110, 16), "cuda": (110, 32)}
MAX_PROMPTS, MIN_PROMPTS, TRIAL_SECONDS = 64, 4, 8
BLOCKS, VOCABULARY = 2, 1024
# Rows of the square matrix that is multiplied, and bytes that are copied: more than any cache holds.
SIZES, COPIED = {"cpu": 1024, "cuda": 8192}, 2**28
# What a tiny model reaches says nothing of larger ones.
LEAST_WIDTH = 512


@dataclass(frozen=True)
class Machine:
    """A device: its peak in FLOP/s, bandwidth in bytes/s, memory in bytes, and the share of both that is reached.

    The peak is that of products in `dtype`. `threads` are those of a CPU, and 0 on a GPU.
    """

    name: str
    flops: float
    bandwidth: float
    memory: float
    efficiency: float
    dtype: str = "bfloat16"
    threads: int = 0

    def seconds(self, flops: float, moved: float) -> float:
        """Return the time of work that computes and moves bytes at once."""
        return max(flops / self.flops, moved / self.bandwidth) / self.efficiency

    def answering_seconds(self, shape: Shape, prompts: int, read: int, written: int, batch: int, dtype: str) -> float:
        """Return the time to read prompts and write replies in batches: the roofline's, over the efficiency."""
        steps = prompts / batch * written
        moved = BYTES[dtype] * shape.matrices + batch * (read + written / 2) * shape.cache_bytes(dtype)
        prefill = self.seconds(2 * shape.matrices * prompts * read, 0)
        return prefill + steps * self.seconds(2 * shape.matrices * batch, moved)


def choose_machine(gpu: str, efficiency: float | None, shape: Shape, dtype: str, threads: int) -> tuple[Machine, str]:
    """Return the machine to plan for, and in words where its share of the roofline comes from.

    The machine is one of `GPUS`, or `here`: this one, measured with a model of this shape and the study's type and
    threads. An efficiency goes before what was measured.
    """
    if gpu == "here":
        machine = measure_machine(shape, dtype, threads)
        apart = "" if shape.width >= LEAST_WIDTH else " with this tiny model, so of no use for others"
        source = f"measured now{apart}"
    else:
        known, source = known_efficiency(dtype)
        machine = Machine(gpu, *GPUS[gpu], known)
    return (machine, source) if efficiency is None else (replace(machine, efficiency=efficiency), "given")


def require_machine(gpu: str, efficiency: float | None) -> None:
    """Raise an `InputError` unless `choose_machine` knows these."""
    if gpu not in {*GPUS, "here"}:
        raise InputError(f"GPU: {gpu}: not known; choose {', '.join(GPUS)}, or here")
    if efficiency is not None and not 0 < efficiency <= 1:
        raise InputError(f"efficiency: is {efficiency}; it must be above 0 and at most 1")


def measure_machine(shape: Shape, dtype: str, threads: int) -> Machine:
    """Measure this machine in the type of a study, and keep what a GPU reaches for later plans.

    The peak is that of a linear layer, the bandwidth that of a copy. The efficiency is the roofline's time over
    the time that plain generation takes with two random blocks of this shape. A tiny model's is not kept.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cost = "seconds" if device == "cuda" else "about a minute"
    print(f"measuring this machine with two blocks of this shape in {dtype}: {cost}", file=sys.stderr)
    usual = torch.get_num_threads()
    # As a study sets them.
    torch.set_num_threads(threads)
    try:
        ideal = _measure_peaks(device, dtype)
        machine = replace(ideal, efficiency=min(1.0, _roofline_share(ideal, shape, device)))
    finally:
        torch.set_num_threads(usual)
    if device == "cuda" and shape.width >= LEAST_WIDTH:
        write_atomically(_kept(), json.dumps(asdict(machine), indent=1) + "\n")
    return machine


def known_efficiency(dtype: str) -> tuple[float, str]:
    """Return the share of a GPU's roofline to plan with in a type, and in words where it comes from."""
    try:
        kept = json.loads(_kept().read_text(encoding="utf-8"))
        # Before types were kept, a file did not say its own, and it could be a CPU's.
        known = Machine(**kept) if kept["dtype"] == dtype else None
    except (OSError, ValueError, TypeError, KeyError):
        known = None
    if known is None or not 0 < known.efficiency <= 1:
        return EFFICIENCY, "assumed; `GPU=here` on a GPU measures it"
    return known.efficiency, f"measured on {known.name}"


def _kept() -> Path:
    return paths.RUNS / "machine.json"


def _measure_peaks(device: str, dtype: str) -> Machine:
    matrix = torch.ones(SIZES[device], SIZES[device], device=device, dtype=getattr(torch, dtype))
    flops = 2 * len(matrix) ** 3 / fastest(lambda: linear(matrix, matrix), runs=5)
    source = torch.ones(COPIED, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    bandwidth = 2 * COPIED / fastest(lambda: target.copy_(source), runs=5)
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        return Machine(properties.name, flops, bandwidth, float(properties.total_memory), 1.0, dtype)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine("CPU", flops, bandwidth, float(memory), 1.0, dtype, torch.get_num_threads())


def _roofline_share(ideal: Machine, shape: Shape, device: str) -> float:
    small = shape.model_copy(update={"blocks": BLOCKS, "vocabulary": VOCABULARY, "tied": False})
    read, written = TRIALS[device]
    prompts = count_trial_prompts(ideal, small, read, written)
    model = random_model(small, ideal.dtype, device)
    tokens = torch.arange(prompts * read, device=device).reshape(prompts, read) % VOCABULARY
    options = {"max_new_tokens": written, "min_new_tokens": written, "do_sample": False, "pad_token_id": 0}
    taken = fastest(lambda: model.generate(tokens, **options), runs=2)
    return ideal.answering_seconds(small, prompts, read, written, prompts, ideal.dtype) / taken


def count_trial_prompts(ideal: Machine, shape: Shape, read: int, written: int) -> int:
    """Return the batch of the trial: a study's, halved until the roofline's time for it is short."""
    prompts = MAX_PROMPTS
    while (
        prompts > MIN_PROMPTS
        and ideal.answering_seconds(shape, prompts, read, written, prompts, ideal.dtype) > TRIAL_SECONDS
    ):
        prompts //= 2
    return prompts
