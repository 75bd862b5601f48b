"""Look at this machine, and at a model, before anything is run: `llmva doctor [MODEL]`."""

import os
import platform
import shutil
from collections.abc import Iterator

import psutil
import torch

from llmva.core import paths
from llmva.core.errors import OneLineParser, command, one_of
from llmva.core.provenance import multiplies_bfloat16, package_version
from llmva.models.inspection import Finding, inspect_model
from llmva.models.sources import absolute_source

MARKS = {"ok": "ok", "warning": "warning", "problem": "PROBLEM"}
PACKAGES = ("torch", "transformers", "peft", "gguf", "lm-eval")
# What a study of eight billion parameters leaves behind, with room for the checkpoint.
LEAST_ROOM = 20e9
# A study computes with the model and keeps a second copy, which judges language.
COPIES, BYTES = 2, 2


@command
def main(arguments: list[str] | None = None) -> int:
    """Print a line for each thing that was looked at; the exit status is 1 where there is a problem."""
    parser = OneLineParser(prog="python -m llmva doctor", description=__doc__)
    parser.add_argument("model", nargs="?", help="a folder, a GGUF file or <hub id>@<revision>; no weights are loaded")
    parser.add_argument("--model", dest="named", help="the same, as other commands take it")
    options = parser.parse_args(arguments)
    options.model = one_of("MODEL", options.model, options.named)
    found = list(inspect_machine())
    if options.model:
        source = absolute_source(options.model)
        found += [Finding("ok", f"model: {source}"), *inspect_model(source)]
    for finding in found:
        fix = f"; {finding.fix}" if finding.fix else ""
        print(f"{MARKS[finding.level]:8} {finding.what}{fix}")
    return int(any(finding.level == "problem" for finding in found))


def inspect_machine() -> Iterator[Finding]:
    """Yield what this machine has: packages, cores, memory, GPUs, fast bfloat16, room on the disk."""
    versions = ", ".join(f"{name} {package_version(name)}" for name in PACKAGES)
    yield Finding("ok", f"Python {platform.python_version()}, {versions}")
    memory = psutil.virtual_memory()
    size = f"{memory.available / 1e9:.0f} of {memory.total / 1e9:.0f} GB of memory are free"
    yield Finding("ok", f"{os.cpu_count()} cores; {size}")
    yield Finding("ok", f"models of up to {_largest(memory.available)} billion weights in bfloat16 fit in it twice")
    yield from _inspect_gpus()
    yield from _inspect_disk()


def _inspect_gpus() -> Iterator[Finding]:
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            name = torch.cuda.get_device_name(number)
            yield Finding("ok", f"{name}: {free / 1e9:.0f} of {total / 1e9:.0f} GB are free")
        return
    yield Finding("ok", "no GPU: `make plan` says what a model takes without one")
    if multiplies_bfloat16():
        yield Finding("ok", "the processor multiplies bfloat16 matrices: --dtype bfloat16 is the faster type")
    else:
        yield Finding("ok", "the processor has no bfloat16 products: --dtype float32 is the faster type")


def _inspect_disk() -> Iterator[Finding]:
    place = paths.RUNS if paths.RUNS.is_dir() else paths.ROOT
    if not os.access(place, os.W_OK):
        yield Finding("problem", f"{place}: not writable", "change its permissions, or set LLMVA_ROOT")
        return
    free = shutil.disk_usage(place).free
    room = f"{free / 1e9:.0f} GB are free where runs are kept ({place})"
    few = free < LEAST_ROOM
    yield Finding("warning" if few else "ok", room, "a large model's checkpoint may not fit" if few else "")


def _largest(room: float) -> str:
    return f"{room / COPIES / BYTES / 1e9:.1f}"


if __name__ == "__main__":
    main()
