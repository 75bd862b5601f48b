"""Every public set that the paper names, as `catalogue.yaml` lists them, and how one of its rows is read."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import yaml

from llmva.core.vocabulary import RUNTIME_SETS, SAFETY_SETS, TASKS, TRANSFER_SETS
from llmva.prompts.files import read_rows
from llmva.prompts.public import rows, runtime_sets

GATED_FIX = "it is gated: log in with `hf auth login`, accept its terms at {page}, or put its file at {file}"
HUB_PAGES = "https://huggingface.co/datasets/"


@dataclass(frozen=True)
class Hub:
    """A set on the hub: its id, configuration, split and revision (a commit; empty where none is known).

    Where a set is a script, which nobody runs, `file` is what it would read.
    """

    id: str
    config: str | None = None
    split: str = "train"
    revision: str = ""
    gated: bool = False
    file: str = ""


@dataclass(frozen=True)
class DataSet:
    """A public set of prompts, or of tasks; `catalogue.yaml` says what the fields mean that it lists.

    Attributes
    ----------
    part : str
        `safety`, `transfer`, `utility` or `runtime`: the folder that its rows go to.
    read : callable
        What reads a file's raw rows.
    parse : callable
        What makes a prompt of one raw row; see `rows.Parser` and `runtime_sets`.
    hub : Hub or None
        None where the set is not on the hub.
    neutral : Hub or None
        Of a task: the rows whose replies are held still, never measured.
    package : str
        A file of a Python package that has the set too; see `core.paths.find_in_package`.
    """

    part: str
    read: Callable[[Path], list[dict]]
    parse: rows.Parser
    files: list[str]
    licence: str
    home: str
    hub: Hub | None
    neutral: Hub | None
    neutral_files: list[str]
    package: str = ""


def _data_set(name: str, entry: dict) -> DataSet:
    hub = Hub(**entry["hub"]) if "hub" in entry else None
    parts = {"utility": TASKS, "safety": SAFETY_SETS, "transfer": TRANSFER_SETS, "runtime": RUNTIME_SETS}
    reader = runtime_sets.read_subject if name == "mmlu" else read_rows
    return DataSet(
        part=next(part for part, names in parts.items() if name in names),
        read=partial(reader, columns=entry.get("columns")),
        parse=_parser(name, entry.get("row")),
        files=entry["files"],
        licence=entry["licence"],
        home=entry.get("home") or HUB_PAGES + hub.id,
        hub=hub,
        neutral=replace(hub, split="train") if name in TASKS else None,
        neutral_files=entry.get("neutral_files", []),
        package=entry.get("package", ""),
    )


def _parser(name: str, row: dict | None) -> rows.Parser:
    if name in RUNTIME_SETS:
        return runtime_sets.PARSERS[name]
    if name in TASKS:
        return rows.classification(**row) if row else rows.gsm
    label = {**SAFETY_SETS, **TRANSFER_SETS}[name]
    return rows.xstest(label) if name.startswith("xstest") else rows.labelled(label)


_ENTRIES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
KNOWN_SETS = {name: _data_set(name, entry) for name, entry in _ENTRIES.items()}
# Those that a study of LLM-VA reads, and that are built unless others are named.
PUBLIC_SETS = {name: data_set for name, data_set in KNOWN_SETS.items() if data_set.part != "runtime"}
