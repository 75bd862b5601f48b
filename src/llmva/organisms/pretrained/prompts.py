"""Public prompts for a pretrained organism, dealt by group: to tune it on, for the study, and unseen ones."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas
import yaml

from llmva.core.errors import InputError
from llmva.core.provenance import random_generator
from llmva.core.vocabulary import LABELS, PRETRAINED_SETS
from llmva.organisms.corpus import candidate_table
from llmva.prompts.public.build import read_sets
from llmva.prompts.public.catalogue import KNOWN_SETS
from llmva.prompts.public.fetching import FOLDER_VARIABLE, fetch, local_folder

words = SimpleNamespace(**yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8")))

# Where LLM-VA's released split files lie below LLMVA_DATA.
RELEASED_FOLDER = "llmva_splits"
# Prompts to tune on, and the largest share of a set that they may be.
TUNING_PROMPTS, MAX_TUNING_SHARE = 842, 0.5
SPLIT_SHARES = {"test": 0.3, "validation": 0.2}
# Ordinary questions are answered by everyone; more of them would only make the sets unequal.
MAX_STUDY_PROMPTS = {"nq": 120}
# Prompts of each of the generated corpus' unseen sets.
GENERATED_PROMPTS = 20
GENERATED_SETS = {
    "generated_toxic": ("advbench", "orbench_toxic", "xstest_toxic"),
    "generated": ("orbench", "xstest"),
}
WRAPPED_SETS = {"wrapped_advbench": "advbench", "wrapped_nq": "nq"}
UNSEEN_KINDS = {"xstest_kinds": "xstest", "xstest_toxic_kinds": "xstest_toxic"}
TABLE_COLUMNS = ["prompt", "label", "group"]


def collect_prompts(report: Callable[[str], None]) -> pandas.DataFrame:
    """Return the prompts of those of `PRETRAINED_SETS` that can be had; the others are reported and left out.

    Files below `LLMVA_DATA` go before the hub, and the released splits of LLM-VA before both.

    Returns
    -------
    DataFrame
        Columns dataset, label, group (its base prompt), prompt, and kind: XSTest's, else empty.

    Raises
    ------
    InputError
        When no set of one label can be had: names what is missing.
    """
    folder = local_folder()
    released = folder / RELEASED_FOLDER if folder and (folder / RELEASED_FOLDER).is_dir() else None
    options = {"folder": folder, "released": released, "missing_allowed": True, "report": report}
    tables, _ = read_sets(tuple(PRETRAINED_SETS), **options)
    for label in LABELS:
        wanted = [name for name, its_label in PRETRAINED_SETS.items() if its_label == label]
        if not any(name in tables for name in wanted):
            raise InputError(
                f"{FOLDER_VARIABLE}: no {label} prompts: none of {', '.join(wanted)} can be had, see above"
            )
    prompts = pandas.concat([table.assign(dataset=name) for name, table in tables.items()], ignore_index=True)
    prompts["kind"] = ""
    of_xstest = prompts["dataset"].isin(["xstest", "xstest_toxic"])
    if of_xstest.any():
        prompts.loc[of_xstest, "kind"] = prompts.loc[of_xstest, "prompt"].map(_read_kinds(folder))
    return prompts[["dataset", "label", "group", "prompt", "kind"]]


def _read_kinds(folder: Path | None) -> dict[str, str]:
    """Return the kind of each of XSTest's prompts, one and the same for both labels."""
    rows = fetch("xstest", KNOWN_SETS["xstest"], folder).rows
    kinds = {row["prompt"].strip(): row["type"].removeprefix("contrast_") for row in rows}
    return {prompt: words.kinds_alike.get(kind, kind) for prompt, kind in kinds.items()}


def deal_prompts(prompts: pandas.DataFrame, seed: int) -> pandas.DataFrame:
    """Deal prompts to what they are for, in a new column `part`; a group is always in one part.

    The parts are `tuning`; `train`, `validation` and `test`, for the study; `unseen`, of kinds of XSTest that change
    with the seed; and nothing, where a set has more than it may.
    """
    held_out = words.unseen_kinds[seed % len(words.unseen_kinds)]
    unseen = set(prompts.loc[prompts["kind"].isin(held_out), "group"])
    part = prompts["group"].map(dict.fromkeys(unseen, "unseen"))
    rest = prompts[part.isna()]
    share = min(MAX_TUNING_SHARE, TUNING_PROMPTS / len(rest))
    # Groups that span the same sets are dealt together, so that every set keeps its shares.
    strata = rest.groupby("group", sort=True)["dataset"].agg(lambda names: "+".join(sorted(set(names))))
    dealt = {}
    for stratum, groups in strata.groupby(strata):
        names = random_generator(seed, "pretrained", "parts", stratum).permutation(groups.index.to_numpy())
        dealt |= zip(names, _deal(len(names), share, MAX_STUDY_PROMPTS.get(stratum)), strict=True)
    return prompts.assign(part=part.fillna(prompts["group"].map(dealt)))


def _deal(count: int, tuning_share: float, maximum: int | None) -> list[str]:
    tuning = round(tuning_share * count)
    left = min(count - tuning, maximum or count)
    held_out = {split: round(share * left) for split, share in SPLIT_SHARES.items()}
    parts = {"tuning": tuning, **held_out, "train": left - sum(held_out.values()), "": count - tuning - left}
    return [part for part, size in parts.items() for _ in range(size)]


def study_tables(dealt: pandas.DataFrame, seed: int) -> dict[str, pandas.DataFrame]:
    """Return the study's prompts by the file that they go to, `safety/<set>` and `transfer/<set>`.

    Unseen are kinds of XSTest, test prompts in wrappers, and the unseen sets of the generated corpus.
    """
    study = dealt[dealt["part"].isin(["train", *SPLIT_SHARES])].assign(split=lambda rows: rows["part"])
    tables = {f"safety/{name}": rows[[*TABLE_COLUMNS, "split"]] for name, rows in study.groupby("dataset")}
    unseen = dealt[dealt["part"] == "unseen"]
    for name, source in UNSEEN_KINDS.items():
        tables[f"transfer/{name}"] = unseen[unseen["dataset"] == source][TABLE_COLUMNS]
    for name, source in WRAPPED_SETS.items():
        tables[f"transfer/{name}"] = _wrap(study[(study["dataset"] == source) & (study["part"] == "test")], seed)
    for name, sources in GENERATED_SETS.items():
        drawn = [candidate_table(source, seed).head(GENERATED_PROMPTS) for source in sources]
        tables[f"transfer/{name}"] = pandas.concat(drawn)
    return {name: table for name, table in tables.items() if len(table)}


def _wrap(rows: pandas.DataFrame, seed: int) -> pandas.DataFrame:
    draws = random_generator(seed, "pretrained", "wrappers")
    wrappers = draws.choice(words.wrappers, size=len(rows))
    wrapped = [wrapper.format(prompt=prompt) for wrapper, prompt in zip(wrappers, rows["prompt"], strict=True)]
    return rows.assign(prompt=wrapped)[TABLE_COLUMNS]
