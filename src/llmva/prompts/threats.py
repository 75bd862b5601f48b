"""Threats at run time: system prompts that take a trait from a model, and the scenarios in which it is looked for."""

from dataclasses import dataclass
from pathlib import Path

import pandas

from llmva.core.errors import InputError
from llmva.core.paths import anchored
from llmva.core.vocabulary import SCENARIOS, THREATS
from llmva.prompts.files import decode, parse_csv, reading, require_columns

SIDES = ALIGNED, MALICIOUS = ("aligned", "malicious")
SYSTEM_COLUMNS = ("threat", "split", *SIDES)
SCENARIO_COLUMNS = ("prompt", "answer", "split")
TURN_COLUMNS = ("conversation", "turn", "prompt", "answer")


@dataclass(frozen=True, eq=False)
class Threat:
    """One threat.

    Attributes
    ----------
    name : str
    systems : DataFrame
        Pairs of system prompts that mean the same: split (`train` or `test`), aligned, malicious.
    scenarios : DataFrame
        split, prompt, answer (empty where no single answer is right).
    turns : DataFrame
        What a person says in conversations: conversation, turn (from 1), prompt, answer.
    """

    name: str
    systems: pandas.DataFrame
    scenarios: pandas.DataFrame
    turns: pandas.DataFrame

    def of_split(self, split: str) -> pandas.DataFrame:
        """Return a split's scenarios, each with its pair of system prompts: those to learn from take turns.

        The test's pair is none of these, so that a direction that only knows them is found out.
        """
        scenarios = self.scenarios[self.scenarios["split"] == split].reset_index(drop=True)
        systems = self.systems[self.systems["split"] == ("test" if split == "test" else "train")]
        taken = systems.iloc[[row % len(systems) for row in range(len(scenarios))]].reset_index(drop=True)
        return scenarios.assign(**{side: taken[side] for side in SIDES})


def chats_of(rows: pandas.DataFrame, side: str) -> list[list[dict]]:
    """Return each row's prompt as a chat behind its system prompt of a side."""
    return [chat_with(system, prompt) for system, prompt in zip(rows[side], rows["prompt"], strict=True)]


def chat_with(system: str, prompt: str) -> list[dict]:
    """Return a chat of a system prompt and one message."""
    return [{"role": "system", "content": system}, {"role": "user", "content": prompt}]


def read_threats(source: str | Path) -> dict[str, Threat]:
    """Read `threats/systems.csv`, and of each threat `threats/<threat>.csv` and `threats/<threat>_turns.csv`.

    Raises
    ------
    InputError
        When a file is missing, cannot be read, lacks a column, or a threat has no scenario of a split.
    """
    folder = anchored(source) / "threats"
    systems = _read(folder / "systems.csv", SYSTEM_COLUMNS)
    _require_contrast(systems, folder / "systems.csv")
    names = [name for name in THREATS if (systems["threat"] == name).any()]
    if not names:
        raise InputError(f"{folder / 'systems.csv'}: threat: none of {', '.join(THREATS)}; name one of them")
    return {name: _read_threat(folder, name, systems[systems["threat"] == name]) for name in names}


def _read_threat(folder: Path, name: str, systems: pandas.DataFrame) -> Threat:
    path = folder / f"{name}.csv"
    scenarios, turns = _read(path, SCENARIO_COLUMNS), _read(folder / f"{name}_turns.csv", TURN_COLUMNS)
    for split in SCENARIOS:
        if not (scenarios["split"] == split).any():
            raise InputError(f"{path}: split: no scenario of {split!r}; mark some so")
    for split in ("train", "test"):
        if not (systems["split"] == split).any():
            raise InputError(f"{folder / 'systems.csv'}: split: no pair of {name} is of {split!r}; mark one so")
    return Threat(name, systems.reset_index(drop=True), scenarios, turns.astype({"conversation": int, "turn": int}))


def _require_contrast(systems: pandas.DataFrame, path: Path) -> None:
    for number, (aligned, malicious) in enumerate(zip(systems[ALIGNED], systems[MALICIOUS], strict=True), start=1):
        if aligned.strip() == malicious.strip():
            raise InputError(f"{path}: malicious: as the aligned prompt in data row {number}; write its contrary")


def _read(path: Path, columns: tuple[str, ...]) -> pandas.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: no such file; it needs columns {', '.join(columns)}")
    with reading(path, "cannot be parsed", "fix that line"):
        table = parse_csv(decode(path.read_bytes()))
    require_columns(table, columns, path)
    return table[list(columns)]
