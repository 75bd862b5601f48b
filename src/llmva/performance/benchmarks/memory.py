"""The peak of memory in an iteration, over the model's own size, in a process of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy
import pandas
from transformers import PreTrainedTokenizerBase

from llmva.core.paths import ROOT
from llmva.core.text_cache import TextCache
from llmva.judging.degeneracy import DegeneracyCheck
from llmva.judging.examiner import Examiner
from llmva.judging.judges import PhraseJudge
from llmva.method.iteration import ObservationSettings
from llmva.method.loop import LoopSettings, align
from llmva.models.chat_model import ChatModel, load_tokenizer
from llmva.performance.sizes import Shape, random_model
from llmva.performance.timing import Row
from llmva.study.study import Study

SHAPE = {"width": 1024, "inner_width": 3072, "heads": 16, "key_value_heads": 8, "head_width": 64, "tied": False}


def memory_rows(study: Study, sizes: dict[str, int]) -> Iterator[Row]:
    """Measure the peak of memory in an iteration."""
    blocks, prompts = sizes["blocks"], 2 * sizes["prompts"]
    setting = f"{blocks} random blocks of width 1024, float32, {prompts} prompts; two copies of the model"
    yield "memory, peak over weights", setting, benchmark_memory(study.params.model, blocks, sizes["prompts"]), "", 1


def benchmark_memory(tokenizer_source: str, blocks: int, prompts: int) -> float:
    """Return the growth of a process's memory during one iteration over the size of a random model's weights.

    A model of `blocks` blocks of width 1024 in float32, with the tokenizer of a checkpoint folder, answers `prompts`
    of each label. Two copies of it are in memory, the one that is edited and the one that judges the language, and
    the originals of what is edited.
    """
    command = [sys.executable, "-m", "llmva.performance.benchmarks.memory", tokenizer_source, str(blocks), str(prompts)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    measured = json.loads(done.stdout.splitlines()[-1])
    return measured["grown"] / measured["size"]


def main(tokenizer_source: str, blocks: int, prompts: int) -> None:
    """Run one iteration on a random model and print the bytes of its weights and the growth of this process."""
    tokenizer = load_tokenizer(tokenizer_source)
    before = _peak()
    model, reference = _random_model(tokenizer, blocks), _random_model(tokenizer, blocks)
    check = DegeneracyCheck(reference, numpy.inf, 64)
    examiner = Examiner(model, _ParityJudge(), TextCache(None), check, 64, 8)
    settings = LoopSettings(2 * blocks, 1, "paper", ObservationSettings(256, "newton", 1.0, seed=0))
    with tempfile.TemporaryDirectory() as folder:
        align(examiner, _prompts(prompts), settings, folder=Path(folder), upstream=())
    size = sum(weight.nbytes for weight in model.model.parameters())
    print(json.dumps({"size": size, "grown": _peak() - before}))


class _ParityJudge(PhraseJudge):
    """Finds both classes in whatever a random model says."""

    def judge(self, prompts, responses):
        return ["refused" * (sum(prompt.encode()) % 2) for prompt in prompts]


def _random_model(tokenizer: PreTrainedTokenizerBase, blocks: int) -> ChatModel:
    shape = Shape(blocks=blocks, vocabulary=len(tokenizer), **SHAPE)
    return ChatModel("random", random_model(shape, eos_token_id=tokenizer.eos_token_id), tokenizer)


def _prompts(count: int) -> pandas.DataFrame:
    rows = [
        {"id": f"{label}{number}", "dataset": label, "label": label, "group": f"{label}{number}",
         "split": "validation" if number % 5 == 0 else "train", "prompt": f"{label} words, number {number}"}
        for label in ("benign", "toxic")
        for number in range(count)
    ]  # fmt: skip
    return pandas.DataFrame(rows)


def _peak() -> int:
    # The peak that getrusage gives is inherited from the process that started this one.
    status = Path("/proc/self/status")
    if not status.is_file():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
