"""Every public set that the paper names, as `catalogue.yaml` lists them, and how one of its rows is read."""

from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from llmva.core.vocabulary import SAFETY_SETS, TASKS, TRANSFER_SETS
from llmva.prompts.public import rows

GATED_FIX = "it is gated: log in with `hf auth login`, accept its terms at {page}, or put its file at {file}"
HUB_PAGES = "https://huggingface.co/datasets/"


@dataclass(frozen=True)
class Hub:
    """A set on the hub: its id, configuration, split and revision (a commit; empty where none is known)."""

    id: str
    config: str | None = None
    split: str = "train"
    revision: str = ""
    gated: bool = False


@dataclass(frozen=True)
class DataSet:
    """A public set of prompts, or of tasks; `catalogue.yaml` says what the fields mean that it lists.

    Attributes
    ----------
    part : str
        `safety`, `transfer` or `utility`: the folder that its rows go to.
    parse : callable
        What makes a prompt of one raw row; see `rows.Parser`.
    hub : Hub or None
        None where the set is not on the hub.
    neutral : Hub or None
        Of a task: the rows whose replies are held still, never measured.
    """

    part: str
    parse: rows.Parser
    files: list[str]
    licence: str
    home: str
    hub: Hub | None
    neutral: Hub | None
    neutral_files: list[str]
    columns: list[str] | None


def _data_set(name: str, entry: dict) -> DataSet:
    hub = Hub(**entry["hub"]) if "hub" in entry else None
    return DataSet(
        part="utility" if name in TASKS else "safety" if name in SAFETY_SETS else "transfer",
        parse=_parser(name, entry.get("row")),
        files=entry["files"],
        licence=entry["licence"],
        home=entry.get("home") or HUB_PAGES + hub.id,
        hub=hub,
        neutral=replace(hub, split="train") if name in TASKS else None,
        neutral_files=entry.get("neutral_files", []),
        columns=entry.get("columns"),
    )


def _parser(name: str, row: dict | None) -> rows.Parser:
    if name in TASKS:
        return rows.classification(**row) if row else rows.gsm
    label = {**SAFETY_SETS, **TRANSFER_SETS}[name]
    return rows.xstest(label) if name.startswith("xstest") else rows.labelled(label)


_ENTRIES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
PUBLIC_SETS = {name: _data_set(name, entry) for name, entry in _ENTRIES.items()}
