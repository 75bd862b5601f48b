"""Threats at run time: system prompts that take a trait from a model, and the scenarios in which it is looked for."""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pandas

from llmva.core.errors import InputError
from llmva.core.paths import anchored
from llmva.core.provenance import digest
from llmva.core.vocabulary import SCENARIOS, THREATS
from llmva.prompts.files import decode, parse_csv, reading, require_columns

SIDES = ALIGNED, MALICIOUS = ("aligned", "malicious")
PAIRS = "pairs"
SYSTEM_COLUMNS = ("threat", "split", *SIDES)
SCENARIO_COLUMNS = ("prompt", "answer", "split")
TURN_COLUMNS = ("conversation", "turn", "prompt", "answer")
PAIR_COLUMNS = ("prompt", *SIDES)
MIN_PAIRS = 10


@dataclass(frozen=True, eq=False)
class Threat:
    """One threat.

    Attributes
    ----------
    name : str
    scenarios : DataFrame
        split, prompt, answer (empty where no single answer is right), and the system prompts aligned and malicious.
    turns : DataFrame
        What a person says in the test's conversations: conversation, turn (from 1), prompt, answer; may be empty.
    """

    name: str
    scenarios: pandas.DataFrame
    turns: pandas.DataFrame

    def of_split(self, split: str) -> pandas.DataFrame:
        """Return a split's scenarios."""
        return self.scenarios[self.scenarios["split"] == split].reset_index(drop=True)


def chats_of(rows: pandas.DataFrame, side: str) -> list[list[dict]]:
    """Return each row's prompt as a chat behind its system prompt of a side."""
    return [
        [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        for system, prompt in zip(rows[side], rows["prompt"], strict=True)
    ]


def read_threats(source: str | Path) -> dict[str, Threat]:
    """Read a data folder's threats, or the one of a CSV file with columns prompt, aligned and malicious.

    A folder has `threats/systems.csv`, and of each threat `threats/<threat>.csv` and `threats/<threat>_turns.csv`.
    Scenarios to learn from take turns with the system prompts that are marked `train`; those of the test have the pair
    that is marked `test`, so that a direction that only knows the others is found out.

    Raises
    ------
    InputError
        Names the file, the column and the fix.
    """
    path = anchored(source)
    if not path.is_dir():
        return {PAIRS: _read_pairs(path)}
    folder = path / "threats"
    systems = _read(folder / "systems.csv", SYSTEM_COLUMNS)
    _require_contrast(systems, folder / "systems.csv")
    names = [name for name in THREATS if (systems["threat"] == name).any()]
    if not names:
        raise InputError(f"{folder / 'systems.csv'}: threat: none of {', '.join(THREATS)}; name one of them")
    return {name: _read_threat(folder, name, systems[systems["threat"] == name]) for name in names}


def _read_threat(folder: Path, name: str, systems: pandas.DataFrame) -> Threat:
    path = folder / f"{name}.csv"
    scenarios, turns = _read(path, SCENARIO_COLUMNS), _read(folder / f"{name}_turns.csv", TURN_COLUMNS)
    parts = []
    for split in SCENARIOS:
        pairs = systems[systems["split"] == ("test" if split == "test" else "train")]
        rows = scenarios[scenarios["split"] == split]
        if pairs.empty or rows.empty:
            lacking = folder / "systems.csv" if pairs.empty else path
            raise InputError(f"{lacking}: split: nothing of {name} for {split!r}; mark some so")
        # Pairs take turns over the scenarios.
        taken = pairs.iloc[[row % len(pairs) for row in range(len(rows))]]
        parts.append(rows.assign(**{side: taken[side].to_numpy() for side in SIDES}))
    return Threat(name, pandas.concat(parts, ignore_index=True), turns.astype({"conversation": int, "turn": int}))


def _read_pairs(path: Path) -> Threat:
    table = _read(path, PAIR_COLUMNS)
    for column in PAIR_COLUMNS:
        if (empty := table[column].str.strip() == "").any():
            raise InputError(f"{path}: {column}: empty in data row {empty.to_numpy().argmax() + 1}; fill or remove it")
    _require_contrast(table, path)
    if (count := table["prompt"].nunique()) < MIN_PAIRS:
        raise InputError(f"{path}: prompt: {count} different ones; at least {MIN_PAIRS} are needed to learn, "
                         "choose and test on others")  # fmt: skip
    scenarios = table.assign(answer="", split=table["prompt"].map(_split(table["prompt"].unique())))
    return Threat(PAIRS, scenarios, pandas.DataFrame(columns=list(TURN_COLUMNS)))


def _split(prompts: Sequence[str]) -> dict[str, str]:
    """Return each prompt's split, in the shares of `SCENARIOS`: none is learnt from and tested on."""
    # The order of digests is any order, and the same everywhere.
    order, ends = sorted(prompts, key=digest), list(accumulate(SCENARIOS.values()))
    places = {prompt: (number + 0.5) / len(order) * ends[-1] for number, prompt in enumerate(order)}
    return {prompt: list(SCENARIOS)[bisect(ends, place)] for prompt, place in places.items()}


def _require_contrast(table: pandas.DataFrame, path: Path) -> None:
    """Raise an `InputError` for a system prompt that stands on both sides, in one row or in two: they would cancel."""
    sides = {side: [_core(text) for text in table[side]] for side in SIDES}
    aligned = {core: number for number, core in reversed(list(enumerate(sides[ALIGNED], start=1)))}
    for number, (own, core) in enumerate(zip(*sides.values(), strict=True), start=1):
        if core == own:
            raise InputError(f"{path}: malicious: as the aligned prompt in data row {number}; write its contrary")
        if core in aligned:
            place = f"in data row {number} as the aligned prompt of data row {aligned[core]}"
            raise InputError(f"{path}: malicious: {place}; swap the two in one of them, or rewrite it")


def _core(text: str) -> str:
    """Return what a prompt says, whatever its case and blanks."""
    return " ".join(text.casefold().split())


def _read(path: Path, columns: tuple[str, ...]) -> pandas.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: no such file; it needs columns {', '.join(columns)}")
    with reading(path, "cannot be parsed", "fix that line"):
        text = decode(path.read_bytes())
        if not text.strip():
            raise InputError(f"{path}: is empty; it needs columns {', '.join(columns)}")
        table = parse_csv(text)
    require_columns(table, columns, path)
    return table[list(columns)]
