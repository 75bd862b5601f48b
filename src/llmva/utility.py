"""Six utility tasks: does the model still do what it could do before?"""

import re
from pathlib import Path

import pandas

from llmva.errors import InputError
from llmva.generation import respond
from llmva.models import ChatModel
from llmva.paths import anchored

TASKS = ("cola", "mnli", "rte", "mrpc", "sst", "gsm")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def read_tasks(folder: str | Path, split: str = "test") -> pandas.DataFrame:
    """Read `utility/<task>.csv` of a data folder: columns task, prompt, answer; no rows without that folder."""
    folder = anchored(folder) / "utility"
    tables = [pandas.DataFrame(columns=["task", "prompt", "answer"])]
    for task in TASKS if folder.is_dir() else ():
        path = folder / f"{task}.csv"
        if not path.is_file():
            raise InputError(f"{path}: no such file; add it with columns prompt, answer, split")
        table = pandas.read_csv(path, dtype=str, keep_default_na=False)
        tables.append(table[table["split"] == split].assign(task=task)[list(tables[0])])
    return pandas.concat(tables, ignore_index=True)


def measure_utility(
    chat_model: ChatModel, tasks: pandas.DataFrame, *, batch_size: int, max_new_tokens: int
) -> pandas.DataFrame:
    """Answer the tasks and return, per task, the accuracy and the number of rows (columns task, accuracy, n)."""
    replies = respond(chat_model, tasks["prompt"].tolist(), batch_size=batch_size, max_new_tokens=max_new_tokens).texts
    right = [is_right(*row) for row in zip(tasks["task"], replies, tasks["answer"], strict=True)]
    scored = tasks.assign(right=right).groupby("task", sort=False)["right"]
    return scored.agg(accuracy="mean", n="size").reset_index()


def is_right(task: str, reply: str, answer: str) -> bool:
    """Tell whether a reply is right: its last number for arithmetic, its opening word elsewhere."""
    if task == "gsm":
        numbers = NUMBER.findall(reply)
        return bool(numbers) and float(numbers[-1]) == float(answer)
    return re.match(rf"{re.escape(answer.lower())}\b", reply.lower().lstrip()) is not None
