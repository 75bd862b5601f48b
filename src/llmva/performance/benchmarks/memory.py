"""The peak of memory in an iteration, over the model's own size, in a process of its own."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import pandas
import torch

from llmva.core.paths import ROOT

SIZES = {"hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16, "num_key_value_heads": 8}


def benchmark_memory(tokenizer_source: str, blocks: int = 12, prompts: int = 320) -> float:
    """Return the growth of a process's memory during one iteration over the size of a random model's weights.

    A model of `blocks` blocks of width 1024 in float32. Two copies of it are in memory, the one that is edited and the
    one that judges the language, and the originals of what is edited.

    Parameters
    ----------
    tokenizer_source : str
        A checkpoint folder whose tokenizer and template are used.
    prompts : int
        Of each label; every fifth is for validation.
    """
    command = [sys.executable, "-m", "llmva.performance.benchmarks.memory", tokenizer_source, str(blocks), str(prompts)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    measured = json.loads(done.stdout.splitlines()[-1])
    return measured["grown"] / measured["size"]


def main(tokenizer_source: str, blocks: int, prompts: int) -> None:
    """Run one iteration on a random model and print the bytes of its weights and the growth of this process."""
    from llmva.judging.degeneracy import DegeneracyCheck
    from llmva.judging.examiner import Examiner
    from llmva.judging.verdict_cache import VerdictCache
    from llmva.method.iteration import ObservationSettings
    from llmva.method.loop import LoopSettings, align
    from llmva.models.chat_model import load_model

    tokenizer = load_model(tokenizer_source).tokenizer
    before = _peak()
    model, reference = _random_model(tokenizer, blocks), _random_model(tokenizer, blocks)
    check = DegeneracyCheck(reference, numpy.inf, 64)
    examiner = Examiner(model, _parity_judge(), VerdictCache(None), check, 64, 8)
    settings = LoopSettings(2 * blocks, 1, "paper", ObservationSettings(256, "newton", 1.0, seed=0))
    with tempfile.TemporaryDirectory() as folder:
        align(examiner, _prompts(prompts), settings, folder=Path(folder), upstream=())
    size = sum(weight.nbytes for weight in model.model.parameters())
    print(json.dumps({"size": size, "grown": _peak() - before}))


def _random_model(tokenizer, blocks: int):
    from transformers import LlamaConfig, LlamaForCausalLM

    from llmva.models.chat_model import ChatModel

    torch.manual_seed(0)
    words = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    config = LlamaConfig(num_hidden_layers=blocks, **SIZES, **words)
    return ChatModel("random", LlamaForCausalLM(config).eval(), tokenizer)


def _parity_judge():
    from llmva.judging.judges import PhraseJudge

    class ParityJudge(PhraseJudge):
        """Finds both classes in whatever a random model says."""

        def judge(self, prompts, responses):
            return ["refused" * (sum(prompt.encode()) % 2) for prompt in prompts]

    return ParityJudge()


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
