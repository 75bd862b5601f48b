"""MMLU, MT-Bench and AlpacaEval, by the hub's schemas and by those of the files: for a study of run-time steering."""

from collections.abc import Sequence
from pathlib import Path

import pandas

from llmva.core.errors import InputError
from llmva.core.provenance import random_generator
from llmva.prompts.files import decode, parse_csv, read_rows, reading

LETTERS = ("A", "B", "C", "D")
SUBJECT_COLUMNS = ("question", *LETTERS, "answer")
# As MMLU's own files end: their names begin with the subject.
SUBJECT_FILES = ("_test.csv", "_val.csv", "_dev.csv")
TURNS = 2
# What a parsed row holds, by set.
COLUMNS = {
    "mmlu": ("subject", "prompt", "answer"),
    "mt_bench": ("conversation", "category", "prompt", "answer"),
    "alpaca_eval": ("source", "prompt"),
}


def read_subject(path: Path, columns: Sequence[str] | None = None) -> list[dict]:
    """Return the rows of one of MMLU's files; a subject's own CSV has no header, and its name is the subject's."""
    if not path.name.endswith(SUBJECT_FILES):
        return read_rows(path, columns)
    with reading(path, "cannot be read", "correct that line, or fetch the file again"):
        table = parse_csv(decode(path.read_bytes()), header=None, names=list(SUBJECT_COLUMNS))
        # What a row lacks is empty.
        if (short := table["answer"] == "").any():
            raise ValueError(f"row {short.to_numpy().argmax() + 1}: fewer than {len(SUBJECT_COLUMNS)} columns")
    return table.assign(subject=path.name.rpartition("_")[0]).to_dict("records")


def parse_mmlu(row: dict) -> tuple[str, str, str] | None:
    """Return subject, prompt and the right letter; the hub has choices and a number, the files a column per letter.

    None of a row without an answer that is known.
    """
    choices = list(row["choices"]) if "choices" in row else [row[letter] for letter in LETTERS]
    if len(choices) != len(LETTERS):
        raise InputError(f"mmlu: a question has {len(choices)} choices, not 4; fetch the set from its home")
    answer = str(row["answer"]).strip().upper()
    letter = LETTERS[int(answer)] if answer in ("0", "1", "2", "3") else answer
    lines = [f"{name}. {str(choice).strip()}" for name, choice in zip(LETTERS, choices, strict=True)]
    subject = row.get("subject") or ""
    about = f" about {subject.replace('_', ' ')}" if subject else ""
    question = [f"This is a multiple-choice question{about}.", row["question"].strip(), *lines]
    prompt = "\n".join([*question, "Answer with the letter A, B, C or D alone."])
    return (subject, prompt, letter) if letter in LETTERS else None


def parse_mt_bench(row: dict) -> tuple[int, str, list[str], list[str]]:
    """Return number, category, both turns and their reference answers, empty where there are none."""
    number, turns = (row["question_id"], row["turns"]) if "turns" in row else (row["prompt_id"], row["prompt"])
    reference = row.get("reference")
    answers = list(reference) if reference is not None else []
    if isinstance(turns, str) or len(turns) != TURNS:
        raise InputError(f"mt_bench: question {number} has no list of {TURNS} turns; fetch the set from its home")
    return int(number), row["category"], list(turns), (answers + [""] * TURNS)[:TURNS]


def parse_alpaca_eval(row: dict) -> tuple[str, str] | None:
    """Return where an instruction is from, and the instruction."""
    return (row.get("dataset") or "", row["instruction"].strip()) if row["instruction"].strip() else None


PARSERS = {"mmlu": parse_mmlu, "mt_bench": parse_mt_bench, "alpaca_eval": parse_alpaca_eval}


def finish_table(name: str, table: pandas.DataFrame, maximum: int, seed: int) -> pandas.DataFrame:
    """Return parsed rows as they are written: a row per turn of MT-Bench, and of MMLU's as many as a task has."""
    if name == "mt_bench":
        turns = table.explode(["prompt", "answer"], ignore_index=True)
        turns.insert(1, "turn", turns.groupby("conversation").cumcount() + 1)
        return turns
    table = table.drop_duplicates("prompt")
    if name == "mmlu" and len(table) > maximum:
        draws = random_generator(seed, "tasks", name, "test")
        table = table.iloc[sorted(draws.choice(len(table), maximum, replace=False))]
    return table
