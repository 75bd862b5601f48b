"""The utility tasks of a data folder, and how an answer is read."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas

from llmva.core.errors import InputError
from llmva.core.paths import anchored
from llmva.core.vocabulary import ALL_TASKS, CHOICE_SEPARATOR, CHOICE_TASKS, LIKELIHOOD_TASKS, REPLY_TASK, TASKS
from llmva.prompts.files import decode, parse_csv, reading, require_columns
from llmva.prompts.sets import find_sets

# What the classification tasks answer; the first is the positive class.
TASK_CLASSES = {
    "cola": ("acceptable", "unacceptable"),
    "mnli": ("entailment", "neutral", "contradiction"),
    "rte": ("true", "false"),
    "mrpc": ("same", "different"),
    "sst": ("positive", "negative"),
}
# What a model of arithmetic writes before its answer.
MARKED_NUMBER = re.compile(r"(?:####|\\boxed\{)\s*([^\n}]*\d[^\n}]*)")
TASK_COLUMNS = ("prompt", "answer", "split")
# Of tasks that are measured by likelihood.
FURTHER_COLUMNS = {**dict.fromkeys(CHOICE_TASKS, (*TASK_COLUMNS, "choices")), REPLY_TASK: ("prompt", "split")}
# Beside an organism's tasks lie the facts that it was taught.
TAUGHT_TABLES = ("facts",)
# The letter that opens a reply to a question of MMLU, alone or before a stop: "A rope." is no letter.
LETTER = re.compile(r"(?:the\s+)?(?:correct\s+)?(?:answer\s*(?:is|:)?\s*)?[\W_]*([a-d])(?:\W*$|\W*\n|\s*[).:*\]])")
# What stands between thousands: a comma or a narrow space; two groups or more may also have plain spaces between them,
# of which one alone, as in "3 100", parts two numbers.
THOUSANDS = r"\d{1,3}(?:(?:[,\u00a0\u2009\u202f]\d{3})+|(?: \d{3}){2,})(?!\d)"
# A dash behind a digit is no sign, as in "12-14". A fraction is one number.
NUMBER = re.compile(rf"(?:(?<!\d)-)?(?:{THOUSANDS}|\d+)(?:\.\d+|/[1-9]\d*)?")
LATEX_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")


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
        if task == "gsm" and not NUMBER.fullmatch(answer):
            raise InputError(f"utility/gsm.csv: answer: {answer!r} is no number; write digits only")
        if task != "gsm" and answer.lower() not in TASK_CLASSES[task]:
            classes = ", ".join(TASK_CLASSES[task])
            raise InputError(f"utility/{task}.csv: answer: {answer!r} is no class of this task; write one of {classes}")


def split_choices(joined: str) -> list[str]:
    """Return the choices of a row, which its table holds joined by `CHOICE_SEPARATOR`."""
    return [choice.strip() for choice in joined.split(CHOICE_SEPARATOR.strip())]


def read_answer(task: str, reply: str) -> str | float | None:
    """Return the class or letter that opens a reply or, for arithmetic, its number; None where there is none.

    The number is the first one behind `####` or in a box of LaTeX, where the reply marks it so, else the last one.
    """
    if task == "gsm":
        reply = LATEX_FRACTION.sub(r"\1/\2", reply.replace("\N{MINUS SIGN}", "-"))
        marked = MARKED_NUMBER.search(reply)
        numbers = NUMBER.findall(marked[1] if marked else reply)
        return _parse_number(numbers[0 if marked else -1]) if numbers else None
    opening = reply.lower().lstrip()
    if task == "mmlu":
        match = LETTER.match(opening)
        return match[1].upper() if match else None
    return next((name for name in TASK_CLASSES[task] if re.match(rf"{name}\b", opening)), None)


def _parse_number(text: str) -> float:
    over, _, under = re.sub(r"[,\s]", "", text).partition("/")
    return float(over) / float(under or 1)


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
