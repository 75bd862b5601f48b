"""Six utility tasks, run through lm-evaluation-harness: does the model still do what it could do before?"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy
import pandas
from sklearn.metrics import f1_score

from llmva.core.errors import InputError
from llmva.core.paths import anchored
from llmva.models.chat_model import ChatModel
from llmva.prompts.sets import find_sets

# What the generated classification tasks answer; the first is the positive class. MNLI has three, and
# entailment is the positive one.
CLASSES = {
    "cola": ("acceptable", "unacceptable"),
    "mnli": ("entailment", "neutral", "contradiction"),
    "rte": ("true", "false"),
    "mrpc": ("same", "different"),
    "sst": ("positive", "negative"),
}
TASKS = (*CLASSES, "gsm")
# The label of the same classes in the harness's own tasks.
STANDARD_POSITIVE = {"cola": 1, "mnli": 0, "rte": 0, "mrpc": 1, "sst": 1}
STANDARD_MAX_NEW_TOKENS = 256
# What the harness's filter writes where a reply holds no number.
NOTHING_FOUND = "[invalid]"
COLUMNS = ("task", "metric", "value", "n", "unreadable")
READ = ("prompt", "answer", "split")
# Beside an organism's tasks lie the facts that it was taught.
NO_TASKS = ("facts",)
NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")


def read_tasks(folder: str | Path, split: str = "test") -> pandas.DataFrame:
    """Read those of `utility/<task>.csv` that a data folder has, or that lie beside a file of prompts.

    Returns
    -------
    DataFrame
        Columns task, prompt, answer, of one split. A task without a file has no rows, and is not measured.

    Raises
    ------
    InputError
        When a file cannot be read, lacks a column or is named after no task.
    """
    place = _task_folder(folder)
    tables = [pandas.DataFrame(columns=["task", "prompt", "answer"])]
    for task in _find_tasks(place):
        table = _read_table(place / f"{task}.csv")
        tables.append(table[table["split"] == split].assign(task=task)[list(tables[0])])
    return pandas.concat(tables, ignore_index=True)


def list_missing_tasks(folder: str | Path) -> list[str]:
    """Return the files of tasks that a data folder goes without; none where the data are one file."""
    there = _find_tasks(_task_folder(folder)) if anchored(folder).is_dir() else TASKS
    return [f"utility/{task}.csv" for task in TASKS if task not in there]


def require_known_answers(tasks: pandas.DataFrame) -> None:
    """Raise an `InputError` when a table of tasks holds an answer that is no class of its task, or no number."""
    for task, answer in tasks[["task", "answer"]].drop_duplicates().itertuples(index=False):
        if task == "gsm" and not NUMBER.fullmatch(answer):
            raise InputError(f"utility/gsm.csv: answer: {answer!r} is no number; write digits only")
        if task != "gsm" and answer.lower() not in CLASSES[task]:
            classes = ", ".join(CLASSES[task])
            raise InputError(f"utility/{task}.csv: answer: {answer!r} is no class of this task; write one of {classes}")


def measure_utility(
    chat_model: ChatModel, tasks: pandas.DataFrame, *, batch_size: int, max_new_tokens: int
) -> pandas.DataFrame:
    """Answer the tasks of a data folder through the harness and score its logged samples.

    Parameters
    ----------
    tasks : DataFrame
        As `read_tasks` returns it.

    Returns
    -------
    DataFrame
        One row per task: task; metric, `f1` of the positive class or, for arithmetic, `accuracy`; value; n, the
        number of prompts; and unreadable, the share of replies that name no class or number. Such a reply is
        never the positive class and never a right number.

    Raises
    ------
    InputError
        When the table holds an answer that is no class of its task, or no number.
    """
    require_known_answers(tasks)
    if tasks.empty:
        return pandas.DataFrame(columns=COLUMNS)
    from llmva.measures.harness import HarnessModel, LocalTask, log_samples  # slow to import

    model = HarnessModel(chat_model, batch_size=batch_size, max_new_tokens=max_new_tokens)
    defined = {task: LocalTask(task, rows) for task, rows in tasks.groupby("task", sort=False)}
    scores = []
    for task, samples in log_samples(model, defined).items():
        answers = [read_answer(task, sample["target"]) for sample in samples]
        given = [read_answer(task, sample["filtered_resps"][0]) for sample in samples]
        scores.append(_score(task, answers, given, CLASSES.get(task, (None,))[0]))
    return pandas.DataFrame(scores)


def measure_standard_utility(
    chat_model: ChatModel, tasks: Mapping, *, batch_size: int, most: int | None = None
) -> pandas.DataFrame:
    """Run the harness's own cola, mnli, rte, mrpc, sst2 and gsm8k, for real models.

    Parameters
    ----------
    tasks : mapping
        As `harness.load_standard_tasks` returns them.
    most : int, optional
        The first so many rows of each task; all of them by default.

    Returns
    -------
    DataFrame
        As from `measure_utility`. The classes are chosen by likelihood; arithmetic is the harness's
        `flexible-extract`, five examples in the prompt, replies of up to 256 tokens.
    """
    from llmva.measures.harness import HarnessModel, log_samples

    model = HarnessModel(chat_model, batch_size=batch_size, max_new_tokens=STANDARD_MAX_NEW_TOKENS)
    scores = []
    for task, samples in log_samples(model, tasks, most).items():
        if task == "gsm":
            samples = [sample for sample in samples if sample["filter"] == "flexible-extract"]
            found = [sample["filtered_resps"][0] != NOTHING_FOUND for sample in samples]
            given = [sample["exact_match"] if seen else None for sample, seen in zip(samples, found, strict=True)]
            scores.append(_score(task, [1.0] * len(given), given))
        else:
            given = [numpy.argmax([value for value, _ in sample["filtered_resps"]]) for sample in samples]
            scores.append(_score(task, [sample["target"] for sample in samples], given, STANDARD_POSITIVE[task]))
    return pandas.DataFrame(scores)


def share_kept(scores: pandas.DataFrame, original: pandas.Series) -> pandas.DataFrame:
    """Return scores, one column per task, as shares of the original's; nan where the original has 0 to keep."""
    return scores[original.index] / original.where(original > 0)


def read_answer(task: str, reply: str) -> str | float | None:
    """Return the class that opens a reply or, for arithmetic, its last number; None where there is none."""
    if task == "gsm":
        numbers = NUMBER.findall(reply)
        return float(numbers[-1].replace(",", "")) if numbers else None
    opening = reply.lower().lstrip()
    return next((name for name in CLASSES[task] if re.match(rf"{name}\b", opening)), None)


def _score(task: str, answers: list, given: list, positive: str | int | None = None) -> dict[str, str | float | int]:
    if positive is None:
        metric, value = "accuracy", numpy.mean([one == other for one, other in zip(answers, given, strict=True)])
    else:
        truths, choices = ([name == positive for name in names] for names in (answers, given))
        metric, value = "f1", f1_score(truths, choices, zero_division=0.0)
    unreadable = numpy.mean([choice is None for choice in given])
    return dict(zip(COLUMNS, (task, metric, float(value), len(answers), float(unreadable)), strict=True))


def _task_folder(folder: str | Path) -> Path:
    place = anchored(folder)
    return (place.parent if place.is_file() else place) / "utility"


def _find_tasks(place: Path) -> list[str]:
    return [task for task in find_sets(place, (*TASKS, *NO_TASKS)) if task in TASKS]


def _read_table(path: Path) -> pandas.DataFrame:
    try:
        table = pandas.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except ValueError as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]}); mend or remove it") from None
    for column in READ:
        if column not in table:
            raise InputError(f"{path}: no column {column!r}; add it (columns found: {', '.join(map(str, table))})")
    return table
