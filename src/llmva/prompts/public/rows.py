"""One raw row of a public set to its prompt, and the prompt's label or a task's answer; names differ by source."""

from collections.abc import Callable

# A prompt, and its label or answer; None for a row of another set.
Parser = Callable[[dict], tuple[str, str] | None]

# Where the text of a prompt stands, by source: the first that a row has.
PROMPT_COLUMNS = ("prompt", "goal", "input", "query", "question")
XSTEST_LABELS = {"safe": "benign", "unsafe": "toxic"}
GLUE_PROMPTS = {
    "cola": "Is this sentence grammatically acceptable?\n{sentence}\nAnswer acceptable or unacceptable.",
    "mnli": "Premise: {premise}\nHypothesis: {hypothesis}\nAnswer entailment, neutral or contradiction.",
    "rte": "{sentence1}\nDoes it follow that: {sentence2}\nAnswer true or false.",
    "mrpc": "First: {sentence1}\nSecond: {sentence2}\nDo both mean the same? Answer same or different.",
    "sst2": "What is the mood of this review?\n{sentence}\nAnswer positive or negative.",
}
# By the labels of the files. Of others, hidden (-1) or "-" where annotators did not agree, nothing can be scored.
GLUE_ANSWERS = {
    "cola": {"1": "acceptable", "0": "unacceptable"},
    "mnli": {"0": "entailment", "1": "neutral", "2": "contradiction"}
    | {name: name for name in ("entailment", "neutral", "contradiction")},
    "rte": {"0": "true", "1": "false", "entailment": "true", "not_entailment": "false"},
    "mrpc": {"1": "same", "0": "different"},
    "sst2": {"1": "positive", "0": "negative"},
}
# Columns of the hub, and what other copies call them.
GLUE_COLUMNS = {
    "mnli": {"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"},
    "mrpc": {"sentence1": "#1 String", "sentence2": "#2 String", "label": "Quality"},
}


def labelled(label: str) -> Parser:
    """Return a parser of rows that all have one label."""
    return lambda row: (_prompt_of(row), label)


def xstest(wanted: str) -> Parser:
    """Return a parser of XSTest's rows of one label; older files have no `label`, but types that begin alike."""

    def parse(row: dict) -> tuple[str, str] | None:
        label = XSTEST_LABELS[row.get("label") or ("unsafe" if row["type"].startswith("contrast_") else "safe")]
        return (_prompt_of(row), label) if label == wanted else None

    return parse


def glue(task: str) -> Parser:
    """Return a parser of the rows of one of GLUE's classification tasks."""

    def parse(row: dict) -> tuple[str, str] | None:
        row = {name: row[other] for name, other in GLUE_COLUMNS.get(task, {}).items() if other in row} | row
        if task == "sst2":
            row["sentence"] = row["sentence"].strip()
        prompt, label = GLUE_PROMPTS[task].format_map(row), str(row["label"])
        return (prompt, GLUE_ANSWERS[task][label]) if label in GLUE_ANSWERS[task] else None

    return parse


def gsm(row: dict) -> tuple[str, str]:
    """Parse a row of GSM8K; the answer is the number after the last `####`, without commas."""
    answer = row["answer"].rpartition("####")[2].strip().replace(",", "")
    return f"{row['question'].strip()}\nEnd your reply with the answer as a number.", answer


def _prompt_of(row: dict) -> str:
    name = next((name for name in PROMPT_COLUMNS if name in row), PROMPT_COLUMNS[0])
    # The full Natural Questions have their text one level down.
    return row[name]["text"] if isinstance(row[name], dict) else row[name]
