"""One raw row of a public set to a prompt with its label, or to a task with its answer; names differ by source."""

from collections.abc import Callable
from typing import NamedTuple

# Where the text of a prompt stands, by source: the first that a row has.
PROMPT_COLUMNS = ("prompt", "goal", "input", "query", "question")
ACCEPTABLE = {"1": "acceptable", "0": "unacceptable"}
INFERENCE = {"0": "entailment", "1": "neutral", "2": "contradiction"}
FOLLOWS = {"0": "true", "1": "false", "entailment": "true", "not_entailment": "false"}
SAME = {"1": "same", "0": "different"}
MOOD = {"1": "positive", "0": "negative"}


class Prompt(NamedTuple):
    """A prompt and its label, benign or toxic."""

    prompt: str
    label: str


class Task(NamedTuple):
    """A task's prompt and its answer: a class of the task, or a number."""

    prompt: str
    answer: str


def labelled(label: str) -> Callable[[dict], Prompt]:
    """Return a reader of rows that all have one label."""
    return lambda row: Prompt(prompt_of(row), label)


def xstest(wanted: str) -> Callable[[dict], Prompt | None]:
    """Return a reader of XSTest's rows of one label; older files have no `label`, but types that begin alike."""

    def parse(row: dict) -> Prompt | None:
        given = row.get("label") or ("unsafe" if row["type"].startswith("contrast_") else "safe")
        label = {"safe": "benign", "unsafe": "toxic"}[given]
        return Prompt(prompt_of(row), label) if label == wanted else None

    return parse


def cola(row: dict) -> Task | None:
    """Read a row of CoLA."""
    prompt = f"Is this sentence grammatically acceptable?\n{row['sentence']}\nAnswer acceptable or unacceptable."
    return _task(prompt, ACCEPTABLE, row)


def mnli(row: dict) -> Task | None:
    """Read a row of MNLI; the answer is the relation of the hypothesis to the premise."""
    premise, hypothesis = _first(row, "premise", "sentence1"), _first(row, "hypothesis", "sentence2")
    prompt = f"Premise: {premise}\nHypothesis: {hypothesis}\nAnswer entailment, neutral or contradiction."
    return _task(prompt, INFERENCE | {name: name for name in INFERENCE.values()}, row, "label", "gold_label")


def rte(row: dict) -> Task | None:
    """Read a row of RTE; true means that the second sentence follows from the first."""
    prompt = f"{row['sentence1']}\nDoes it follow that: {row['sentence2']}\nAnswer true or false."
    return _task(prompt, FOLLOWS, row)


def mrpc(row: dict) -> Task | None:
    """Read a row of MRPC, in the hub's form or Microsoft's."""
    first, second = _first(row, "sentence1", "#1 String"), _first(row, "sentence2", "#2 String")
    prompt = f"First: {first}\nSecond: {second}\nDo both mean the same? Answer same or different."
    return _task(prompt, SAME, row, "label", "Quality")


def sst(row: dict) -> Task | None:
    """Read a row of SST-2."""
    prompt = f"What is the mood of this review?\n{row['sentence'].strip()}\nAnswer positive or negative."
    return _task(prompt, MOOD, row)


def gsm(row: dict) -> Task:
    """Read a row of GSM8K; the answer is the number after the last `####`, without commas."""
    answer = row["answer"].rpartition("####")[2].strip().replace(",", "")
    return Task(f"{row['question'].strip()}\nEnd your reply with the answer as a number.", answer)


def prompt_of(row: dict) -> str:
    """Return a row's prompt; the full Natural Questions have it one level down."""
    value = _first(row, *PROMPT_COLUMNS)
    return value["text"] if isinstance(value, dict) else value


def _task(prompt: str, answers: dict[str, str], row: dict, *columns: str) -> Task | None:
    label = str(_first(row, *(columns or ("label",))))
    # Of hidden labels (-1) and of "-", where annotators did not agree, nothing can be scored.
    return Task(prompt, answers[label]) if label in answers else None


def _first(row: dict, *names: str):
    for name in names:
        if name in row:
            return row[name]
    raise KeyError(names[0])
