"""One raw row of a public set to its prompt, and the prompt's label or a task's answer; names differ by source."""

from collections.abc import Callable, Mapping, Sequence

# A prompt, and its label or answer; None for a row of another set.
Parser = Callable[[dict], tuple[str, str] | None]

# Where the text of a prompt stands, by source: the first that a row has.
PROMPT_COLUMNS = ("prompt", "goal", "input", "query", "question")
XSTEST_LABELS = {"safe": "benign", "unsafe": "toxic"}


def labelled(label: str) -> Parser:
    """Return a parser of rows that all have one label."""
    return lambda row: (_prompt_of(row), label)


def xstest(wanted: str) -> Parser:
    """Return a parser of XSTest's rows of one label; older files have no `label`, but types that begin alike."""

    def parse(row: dict) -> tuple[str, str] | None:
        label = XSTEST_LABELS[row.get("label") or ("unsafe" if row["type"].startswith("contrast_") else "safe")]
        return (_prompt_of(row), label) if label == wanted else None

    return parse


def classification(
    prompt: str, answers: Mapping[str, str], other_names: Mapping[str, str] | None = None, stripped: Sequence[str] = ()
) -> Parser:
    """Return a parser of the rows of a classification task.

    Parameters
    ----------
    prompt : str
        With the hub's columns in braces.
    answers : mapping
        By the labels of the files. Of others, hidden (-1) or "-" where annotators did not agree, nothing can be scored.
    other_names : mapping, optional
        By columns of the hub: what other copies call them.
    stripped : sequence of str
        Columns with white space around their texts.
    """

    def parse(row: dict) -> tuple[str, str] | None:
        row = {name: row[other] for name, other in (other_names or {}).items() if other in row} | row
        row |= {name: row[name].strip() for name in stripped}
        text, label = prompt.format_map(row), str(row["label"])
        return (text, answers[label]) if label in answers else None

    return parse


def gsm(row: dict) -> tuple[str, str]:
    """Parse a row of GSM8K; the answer is the number after the last `####`, without commas."""
    answer = row["answer"].rpartition("####")[2].strip().replace(",", "")
    return f"{row['question'].strip()}\nEnd your reply with the answer as a number.", answer


def _prompt_of(row: dict) -> str:
    name = next((name for name in PROMPT_COLUMNS if name in row), PROMPT_COLUMNS[0])
    # The full Natural Questions have their text one level down.
    return row[name]["text"] if isinstance(row[name], dict) else row[name]
