"""From prompts to a study's pool: candidates, splits by group, samples, errors first."""

from collections.abc import Mapping
from pathlib import Path

import numpy
import pandas

from llmva.core.paths import anchored
from llmva.core.provenance import digest, random_generator
from llmva.core.vocabulary import ATTACK_SETS, SPLITS
from llmva.prompts.sets import find_sets, known_sets, read_prompts

SET_COLUMNS = ["id", "dataset", "label", "group", "prompt"]
POOL_COLUMNS = ["id", "dataset", "label", "group", "split", "prompt"]
# Of a set's pool, where a study names no other share.
DEFAULT_ERROR_SHARE = 0.5


def read_transfer_sets(source: str | Path, per_dataset: int, seed: int) -> pandas.DataFrame:
    """Draw at most `per_dataset` prompts of each `transfer/<dataset>.csv` that a data folder has; else no rows."""
    folder, known = anchored(source) / "transfer", known_sets(anchored(source))["transfer"]
    sets = [read_prompts(folder / f"{name}.csv", name) for name in find_sets(folder, known)]
    if not sets:
        return pandas.DataFrame(columns=SET_COLUMNS)
    return _draw(pandas.concat(sets, ignore_index=True), per_dataset, seed, "transfer")


def read_attack_sets(source: str | Path) -> pandas.DataFrame:
    """Read every `attacks/<dataset>.csv` that a data folder has; else no rows."""
    folder = anchored(source) / "attacks"
    sets = [read_prompts(folder / f"{name}.csv", name) for name in find_sets(folder, ATTACK_SETS)]
    return pandas.concat(sets, ignore_index=True) if sets else pandas.DataFrame(columns=SET_COLUMNS)


def draw_candidates(prompts: pandas.DataFrame, per_dataset: int, seed: int) -> pandas.DataFrame:
    """Draw at most `per_dataset` prompts of each set, in the table's order."""
    return _draw(prompts, per_dataset, seed, "candidates")


def draw_sample(prompts: pandas.DataFrame, per_dataset: int, seed: int, iteration: int) -> pandas.DataFrame:
    """Draw an iteration's fresh training sample: at most `per_dataset` training prompts of each set."""
    return _draw(prompts[prompts["split"] == "train"], per_dataset, seed, "sample", iteration)


def assign_splits(prompts: pandas.DataFrame, seed: int) -> pandas.Series:
    """Return each prompt's split, 8:1:1, a group always on one side.

    Groups are shuffled and dealt within strata of equal labels, so that both labels reach every
    split even in a small table. Sets that came with splits of their own keep these, groups or not, and
    rows without one stand where the first of their group that has one stands.
    """
    dealt = _dealt(prompts, seed)
    if "split" not in prompts:
        return dealt
    brought = prompts["split"].where(prompts["split"].fillna("") != "")
    return brought.fillna(brought.groupby(prompts["group"]).transform("first")).fillna(dealt)


def _dealt(prompts: pandas.DataFrame, seed: int) -> pandas.Series:
    strata = prompts.groupby("group", sort=True)["label"].agg(lambda labels: "+".join(sorted(set(labels))))
    split_of_group = {}
    for stratum, groups in strata.groupby(strata):
        names = random_generator(seed, "splits", stratum).permutation(groups.index.to_numpy())
        # A stratum too small to reach every split, as of groups with both labels, goes to training.
        held_out = max(1, round(SPLITS["test"] * len(names))) if len(names) >= len(SPLITS) else 0
        sides = ["test"] * held_out + ["validation"] * held_out + ["train"] * (len(names) - 2 * held_out)
        split_of_group |= zip(names, sides, strict=True)
    return prompts["group"].map(split_of_group)


def errors_first_pool(
    candidates: pandas.DataFrame, wrong: pandas.Series, *, size: int, error_share: Mapping[str, float], seed: int
) -> pandas.DataFrame:
    """Choose a model's pool: per set and split, its errors up to a share, then prompts it handles.

    Parameters
    ----------
    candidates : DataFrame
        Prompts with their `split`.
    wrong : Series of bool, indexed by id
        True where the original model errs (a jailbreak or an over-refusal).
    size : int
        Rows per set over all splits; a set with fewer candidates gives what it has.
    error_share : mapping
        Largest share of errors per set; half for sets not named. With errors alone, the two labels would
        be each other's opposite, and so would v_a and v_b.

    Returns
    -------
    DataFrame
        Columns as `POOL_COLUMNS`, sorted by set, split and id.
    """
    chosen = []
    for (dataset, split), rows in candidates.groupby(["dataset", "split"], sort=True):
        quota = round(SPLITS[split] * size)
        rows = rows.sort_values("id").sample(frac=1, random_state=random_generator(seed, "pool", dataset, split))
        is_wrong = wrong.reindex(rows["id"]).to_numpy(dtype=bool)
        errors = rows[is_wrong].head(round(quota * error_share.get(dataset, DEFAULT_ERROR_SHARE)))
        chosen.append(pandas.concat([errors, rows[~is_wrong].head(quota - len(errors))]))
    pool = pandas.concat(chosen).sort_values(["dataset", "split", "id"])
    return pool[POOL_COLUMNS].reset_index(drop=True)


def describe_pool(pool: pandas.DataFrame) -> dict:
    """Return what a manifest records of a pool: rows per set and split, and a digest of each set's prompts."""
    counts = pool.groupby(["dataset", "split"]).size().unstack(fill_value=0)
    digests = {name: digest(sorted(rows["prompt"])) for name, rows in pool.groupby("dataset")}
    return {"rows": counts.to_dict("index"), "prompt_digests": digests}


def _draw(prompts: pandas.DataFrame, per_dataset: int, seed: int, *purpose) -> pandas.DataFrame:
    drawn = []
    for dataset, rows in prompts.groupby("dataset", sort=True):
        if len(rows) > per_dataset:
            picks = random_generator(seed, *purpose, dataset).choice(len(rows), per_dataset, replace=False)
            rows = rows.iloc[numpy.sort(picks)]
        drawn.append(rows)
    return pandas.concat(drawn, ignore_index=True)
