"""The utility tasks of a data folder, and how an answer is read."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas

from llmva.core.errors import InputError
from llmva.core.paths import anchored
from llmva.core.vocabulary import ALL_TASKS, CHOICE_SEPARATOR, CHOICE_TASKS, LIKELIHOOD_TASKS, REPLY_TASK, TASKS
from llmva.prompts.files import decode, parse_csv, reading, require_columns
from llmva.prompts.numbers import is_number, read_number
from llmva.prompts.sets import find_sets

# What the classification tasks answer; the first is the positive class.
TASK_CLASSES = {
    "cola": ("acceptable", "unacceptable"),
    "mnli": ("entailment", "neutral", "contradiction"),
    "rte": ("true", "false"),
    "mrpc": ("same", "different"),
    "sst": ("positive", "negative"),
}
TASK_COLUMNS = ("prompt", "answer", "split")
# Of tasks that are measured by likelihood.
FURTHER_COLUMNS = {**dict.fromkeys(CHOICE_TASKS, (*TASK_COLUMNS, "choices")), REPLY_TASK: ("prompt", "split")}
# Beside an organism's tasks lie the facts that it was taught.
TAUGHT_TABLES = ("facts",)
# What a class may stand in: mark-up, quotation marks, brackets and boxes; before a letter is no other sign of note
# either. Each takes all that it can, for replies that are nothing but mark-up.
BOXES = r"\\(?:boxed|text|textbf|mathrm|mathbf)\{"
WRAPPING = rf"(?:{BOXES}|[\s*_`#>\"'\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb()\[\]$-])*+"
SIGNS = rf"(?:{BOXES}|[\W_])*+"
# The letter that opens a reply to a question of MMLU, alone or before a stop: "A rope." is no letter.
LETTER = re.compile(
    rf"{SIGNS}(?:the\s+)?(?:correct\s+)?(?:(?:answer|option|choice)\b{SIGNS}(?:is\b)?)?{SIGNS}(?:(?:option|choice)\b)?"
    rf"{SIGNS}([a-d])(?:\W*$|\W*\n|_|\s*[).:*\]}}]|\s+is\s+(?:the\s+)?(?:correct|right)\b)"
)


def read_tasks(folder: str | Path, split: str = "test", known: Iterable[str] = ALL_TASKS) -> pandas.DataFrame:
    """Read those of `utility/<task>.csv` that a data folder has, or that lie beside a file of prompts.

    Parameters
    ----------
    known : iterable of str
        The tasks that are wanted.

    Returns
    -------
    DataFrame
        Columns task, prompt, answer, of one split; and choices, as `split_choices` takes them, where the data have a
        task that gives choices. A task without a file has no rows, and is not measured. What a task does not give is
        empty.

    Raises
    ------
    InputError
        When a file cannot be read, lacks a column or is named after no task.
    """
    task_folder = _task_folder(folder)
    tables = [pandas.DataFrame(columns=["task", "prompt", "answer"])]
    for task in _find_tasks(task_folder):
        if task in known:
            table = _read_task(task_folder / f"{task}.csv", FURTHER_COLUMNS.get(task, TASK_COLUMNS))
            tables.append(table[table["split"] == split].assign(task=task))
    columns = [*tables[0], *(["choices"] if any("choices" in table for table in tables) else [])]
    return pandas.concat([table.reindex(columns=columns, fill_value="") for table in tables], ignore_index=True)


def list_missing_tasks(folder: str | Path) -> list[str]:
    """Return the files of tasks that a data folder goes without; none where the data are one file.

    Where all that it has is measured by likelihood, those are the tasks that it should have.
    """
    if not anchored(folder).is_dir():
        return []
    there = _find_tasks(_task_folder(folder))
    wanted = LIKELIHOOD_TASKS if there and not set(there) & set(TASKS) else TASKS
    return [f"utility/{task}.csv" for task in wanted if task not in there]


def require_known_answers(tasks: pandas.DataFrame) -> None:
    """Raise an `InputError` when a table of tasks holds an answer that is no class or choice, or no number."""
    for row in tasks[tasks["task"].isin(CHOICE_TASKS)].itertuples():
        _require_choices(f"utility/{row.task}.csv", row.answer, split_choices(row.choices))
    others = tasks[~tasks["task"].isin(LIKELIHOOD_TASKS)]
    for task, answer in others[["task", "answer"]].drop_duplicates().itertuples(index=False):
        if task == "gsm" and not is_number(answer):
            raise InputError(f"utility/gsm.csv: answer: {answer!r} is no number; write digits only")
        if task != "gsm" and answer.lower() not in TASK_CLASSES[task]:
            classes = ", ".join(TASK_CLASSES[task])
            raise InputError(f"utility/{task}.csv: answer: {answer!r} is no class of this task; write one of {classes}")


def split_choices(joined: str) -> list[str]:
    """Return the choices of a row, which its table holds joined by `CHOICE_SEPARATOR`."""
    return [choice.strip() for choice in joined.split(CHOICE_SEPARATOR.strip())]


def read_answer(task: str, reply: str) -> str | float | None:
    """Return the class or letter that opens a reply or, for arithmetic, its number; None where there is none.

    Mark-up, quotation marks and brackets may stand before a class or letter; see `read_number` for the number.
    """
    if task == "gsm":
        return read_number(reply)
    opening = reply.lower().lstrip()
    if task == "mmlu":
        match = LETTER.match(opening)
        return match[1].upper() if match else None
    return next((name for name in TASK_CLASSES[task] if re.match(rf"{WRAPPING}{name}(?![^\W_])", opening)), None)


def _task_folder(source: str | Path) -> Path:
    path = anchored(source)
    return (path.parent if path.is_file() else path) / "utility"


def _find_tasks(folder: Path) -> list[str]:
    return [task for task in find_sets(folder, (*ALL_TASKS, *TAUGHT_TABLES)) if task in ALL_TASKS]


def _read_task(path: Path, columns: Sequence[str]) -> pandas.DataFrame:
    with reading(path, "cannot be read", "fix or remove it"):
        table = parse_csv(decode(path.read_bytes()))
    require_columns(table, columns, path)
    return table[list(columns)]


def _require_choices(source: str, answer: str, choices: list[str]) -> None:
    joined = CHOICE_SEPARATOR.join(choices)
    if len(choices) < 2 or len(set(choices)) < len(choices) or "" in choices:
        fix = f"join two or more different ones by {CHOICE_SEPARATOR!r}"
        raise InputError(f"{source}: choices: {joined!r} is nothing to choose from; {fix}")
    if answer not in choices:
        raise InputError(f"{source}: answer: {answer!r} is none of the choices; write one of {joined}")
