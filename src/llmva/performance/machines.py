"""What a machine can do: published peaks of GPUs, this machine's own, and the share that plain generation reaches."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

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
# The trial: prompts, tokens read and written by each; on a GPU a batch as large as a study's.
TRIALS = {"cpu": (8, 64, 8), "cuda": (64, 110, 32)}
BLOCKS, VOCABULARY = 2, 1024
# What a tiny model reaches says nothing of larger ones.
LEAST_WIDTH = 512


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

    def answering_seconds(self, shape: Shape, prompts: int, read: int, written: int, batch: int, dtype: str) -> float:
        """Return the time to read prompts and write replies in batches: the roofline's, over the efficiency."""
        steps = prompts / batch * written
        moved = BYTES[dtype] * shape.matrices + batch * (read + written / 2) * shape.cache_bytes(dtype)
        prefill = self.seconds(2 * shape.matrices * prompts * read, 0)
        return prefill + steps * self.seconds(2 * shape.matrices * batch, moved)


def choose_machine(gpu: str, efficiency: float | None, shape: Shape) -> tuple[Machine, str]:
    """Return the machine to plan for, and in words where its share of the roofline comes from.

    The machine is one of `GPUS`, or `here`: this one, measured with a model of this shape. An efficiency goes before
    what was measured.
    """
    if gpu == "here":
        machine = measure_machine(shape)
        apart = "" if shape.width >= LEAST_WIDTH else " with this tiny model, so of no use for others"
        source = f"measured now{apart}"
    else:
        known, source = known_efficiency()
        machine = Machine(gpu, *GPUS[gpu], known)
    return (machine, source) if efficiency is None else (replace(machine, efficiency=efficiency), "given")


def require_machine(gpu: str, efficiency: float | None) -> None:
    """Raise an `InputError` unless `choose_machine` knows these."""
    if gpu not in {*GPUS, "here"}:
        raise InputError(f"GPU: {gpu}: not known; choose {', '.join(GPUS)}, or here")
    if efficiency is not None and not 0 < efficiency <= 1:
        raise InputError(f"efficiency: is {efficiency}; it must be above 0 and at most 1")


def measure_machine(shape: Shape) -> Machine:
    """Measure this machine, and keep the result for later plans unless the model is tiny.

    The peak is that of a matrix product, the bandwidth that of a copy. The efficiency is the roofline's time over
    the time that plain generation takes with two random blocks of this shape: seconds on a GPU, a minute without.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (2048, torch.float32)
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    flops = 2 * size**3 / fastest(lambda: matrix @ matrix, runs=5)
    bandwidth = 2 * matrix.nbytes / fastest(matrix.clone, runs=5)
    properties = torch.cuda.get_device_properties(0) if device == "cuda" else None
    memory = properties.total_memory if properties else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    name = properties.name if properties else f"{torch.get_num_threads()} CPU threads"
    ideal = Machine(name, flops, bandwidth, float(memory), 1.0)
    machine = replace(ideal, efficiency=min(1.0, _roofline_share(ideal, shape, device)))
    if shape.width >= LEAST_WIDTH:
        write_atomically(_kept(), json.dumps(asdict(machine), indent=1) + "\n")
    return machine


def known_efficiency() -> tuple[float, str]:
    """Return the share of the roofline to plan with, and in words where it comes from."""
    try:
        known = Machine(**json.loads(_kept().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        known = None
    if known is None or not 0 < known.efficiency <= 1:
        return EFFICIENCY, "assumed; `GPU=here` measures it"
    a_guess = ", so a guess for a GPU" if "CPU" in known.name else ""
    return known.efficiency, f"measured on {known.name}{a_guess}"


def _kept() -> Path:
    return paths.RUNS / "machine.json"


def _roofline_share(ideal: Machine, shape: Shape, device: str) -> float:
    prompts, read, written = TRIALS[device]
    dtype = "bfloat16" if device == "cuda" else "float32"
    small = shape.model_copy(update={"blocks": BLOCKS, "vocabulary": VOCABULARY, "tied": False})
    model = random_model(small, dtype, device)
    tokens = torch.arange(prompts * read, device=device).reshape(prompts, read) % VOCABULARY
    options = {"max_new_tokens": written, "min_new_tokens": written, "do_sample": False, "pad_token_id": 0}
    taken = fastest(lambda: model.generate(tokens, **options), runs=2)
    return ideal.answering_seconds(small, prompts, read, written, prompts, dtype) / taken
