"""Public prompts that no threat is about: a data folder's MMLU, MT-Bench and AlpacaEval, as `make data` writes them."""

from pathlib import Path

import pandas

from llmva.core.errors import InputError
from llmva.core.paths import anchored
from llmva.core.provenance import digest
from llmva.core.vocabulary import RUNTIME_SETS
from llmva.prompts.files import decode, parse_csv, reading, require_columns
from llmva.prompts.tasks import read_answer

MMLU, MT_BENCH, ALPACA_EVAL = RUNTIME_SETS
# Of the prompts without a right answer, so many of each set are read: every token of them is kept in memory.
MAX_OPEN_PROMPTS = 80


def read_mmlu(source: str | Path) -> pandas.DataFrame:
    """Read `runtime/mmlu.csv` of a data folder: columns task, prompt, answer; no rows where there is no such file.

    Raises
    ------
    InputError
        When the file cannot be read, lacks a column, or has an answer that is no letter from A to D.
    """
    table = _read(source, MMLU, ("prompt", "answer"))
    for row, answer in enumerate(table["answer"], start=1):
        if read_answer(MMLU, answer) is None:
            raise InputError(f"runtime/{MMLU}.csv: answer: {answer!r} in data row {row}; write a letter from A to D")
    return table.assign(task=MMLU)[["task", "prompt", "answer"]]


def read_conversations(source: str | Path) -> pandas.DataFrame:
    """Read `runtime/mt_bench.csv`: columns conversation, turn (1 or 2), category, prompt, answer (may be empty)."""
    columns = ("conversation", "turn", "category", "prompt", "answer")
    table = _read(source, MT_BENCH, columns)
    if strange := sorted(set(table["turn"]) - {"1", "2"}):
        raise InputError(f"runtime/{MT_BENCH}.csv: turn: is {strange[0]!r}; write 1 or 2")
    return table[list(columns)].astype({"turn": int})


def read_open_prompts(source: str | Path) -> list[str]:
    """Return prompts without a right answer: first turns of MT-Bench, and instructions of AlpacaEval."""
    conversations = read_conversations(source)
    first = conversations.loc[conversations["turn"] == 1, "prompt"]
    instructions = _read(source, ALPACA_EVAL, ("prompt",))["prompt"]
    # The order of digests is any order, and the same everywhere.
    return [prompt for prompts in (first, instructions) for prompt in sorted(prompts, key=digest)[:MAX_OPEN_PROMPTS]]


def _read(source: str | Path, name: str, columns: tuple[str, ...]) -> pandas.DataFrame:
    path = anchored(source)
    path = (path.parent if path.is_file() else path) / "runtime" / f"{name}.csv"
    if not path.is_file():
        return pandas.DataFrame(columns=list(columns), dtype=str)
    with reading(path, "cannot be read", "fix or remove it"):
        table = parse_csv(decode(path.read_bytes()))
    require_columns(table, columns, path)
    return table
