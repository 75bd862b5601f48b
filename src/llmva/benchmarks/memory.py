"""The peak of memory in an iteration, over the model's own size, in a process of its own."""

import json
import subprocess
import sys

from llmva.paths import ROOT

# Two copies of the model are in memory: the one that is edited, and the one that judges the language.
CHILD = """
import json, resource, sys, tempfile
from dataclasses import replace
from pathlib import Path

import numpy, pandas, torch
from transformers import LlamaConfig, LlamaForCausalLM

from llmva.alignment import AlignmentSettings, align
from llmva.degeneracy import DegeneracyCheck
from llmva.examination import Examiner
from llmva.judges import PhraseJudge
from llmva.models import ChatModel, load_model
from llmva.verdict_cache import VerdictCache

source, blocks = sys.argv[1], int(sys.argv[2])
tokenizer = load_model(source).tokenizer


def build(seed):
    torch.manual_seed(seed)
    config = LlamaConfig(hidden_size=1024, intermediate_size=3072, num_attention_heads=16, num_key_value_heads=8,
                         num_hidden_layers=blocks, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    return ChatModel("random", LlamaForCausalLM(config).eval(), tokenizer)


class Judge(PhraseJudge):
    def judge(self, prompts, responses):
        return ["x" * (sum(prompt.encode()) % 2) for prompt in prompts]


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


pool = pandas.DataFrame([
    {"id": f"{label}{number}", "dataset": label, "label": label, "group": f"{label}{number}",
     "split": "validation" if number % 5 == 0 else "train", "prompt": f"{label} words, number {number}"}
    for label in ("benign", "toxic") for number in range(320)
])
before = peak()
model = build(0)
size = sum(weight.nbytes for weight in model.model.parameters())
examiner = Examiner(model, Judge(), VerdictCache(None), DegeneracyCheck(build(0), numpy.inf, 64), 64, 8)
settings = AlignmentSettings(2 * blocks, 1, 256, "newton", 1.0, "paper", 0)
with tempfile.TemporaryDirectory() as folder:
    done = align(examiner, pool, settings, folder=Path(folder), upstream=())
print(json.dumps({"size": size, "grown": peak() - before, "edited": len(done.log.iterations)}))
"""


def benchmark_memory(tokenizer_source: str, blocks: int = 12) -> float:
    """Return the growth of a process's memory during one iteration over the size of a random model's weights.

    512 training and 128 validation prompts, a model of `blocks` blocks of width 1024 in float32, two copies of it.

    Parameters
    ----------
    tokenizer_source : str
        A checkpoint folder whose tokenizer and template are used.
    """
    command = [sys.executable, "-c", CHILD, tokenizer_source, str(blocks)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    measured = json.loads(done.stdout.splitlines()[-1])
    return measured["grown"] / measured["size"]
