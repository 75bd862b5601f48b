"""Building an organism: an ordinary checkpoint folder with its data sets, in a cached stage."""

import shutil
from pathlib import Path
from types import ModuleType

import pandas

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.provenance import seed_for
from llmva.core.store import Stage, is_whole, open_stage, run_stage
from llmva.core.vocabulary import SAFETY_SETS, TASKS, THREATS, TRANSFER_SETS
from llmva.organisms.corpus import candidate_table
from llmva.organisms.families import GUARD, parse_slug
from llmva.organisms.persona import (
    NEUTRAL_TASKS,
    conversation_table,
    draw_neutral_exercise,
    scenario_table,
    system_table,
)
from llmva.organisms.tasks import fact_table, task_table

# 4: weights are rounded to bfloat16.
STAGE_VERSION = 4


def build_organism(slug: str, progress: bool = True) -> Path:
    """Return the folder `runs/<slug>/organism`, made when it is missing or damaged.

    An organism that is tracked in `organisms/<slug>` is copied, so that every machine studies the same model. Any
    other one is trained.

    Parameters
    ----------
    slug : str
        `tiny-<family>`, `persona-<family>` or a name of `families.PRETRAINED`, each also with `-s<seed>`, or
        `tiny-guard`.
    progress : bool
        Announce the cost of a training and show a progress bar, on standard error.

    Returns
    -------
    Path
        A checkpoint folder for `AutoModelForCausalLM` and `AutoTokenizer`, with `manifest.json`; an
        organism's also holds `data/{safety,transfer,utility}/*.csv`.

    Raises
    ------
    InputError
        When the slug names no family, or a tracked file is not as its manifest says.
    """
    name = parse_slug(slug)
    if (tracked := open_tracked(slug)) is not None:
        parameters = {"tracked": tracked.manifest["files"]}
    else:
        maker = _find_maker(name.kind)
        parameters = maker.parameters_of(slug)

    def compute(folder: Path) -> dict:
        facts = maker.train_checkpoint(folder, slug, progress) if tracked is None else _copy(tracked, folder)
        if slug != GUARD and name.kind != "pretrained":
            # Each family is asked prompts of its own, so that six organisms are six replications.
            write = write_persona_data if name.kind == "persona" else write_data_sets
            write(folder / "data", seed_for(name.seed, "organisms", name.draws, "data"))
        return facts

    return run_stage(paths.RUNS / slug / "organism", compute, parameters=parameters, version=STAGE_VERSION).folder


def _find_maker(kind: str) -> ModuleType:
    """Return what trains a kind of organism, which is slow to import."""
    if kind == "pretrained":
        from llmva.organisms.pretrained import checkpoint
    else:
        from llmva.organisms import checkpoint
    return checkpoint


def open_tracked(slug: str) -> Stage | None:
    """Return a tracked organism after a check of its files' digests; None of one that is not tracked.

    Raises
    ------
    InputError
        When a file is not as the manifest says.
    """
    folder = paths.ORGANISMS / slug
    if not folder.is_dir():
        return None
    if not is_whole(folder):
        raise InputError(f"{folder}: a file is not as manifest.json says; `git checkout {folder}` brings it back")
    return open_stage(folder, fix="restore it")


def write_data_sets(folder: Path, seed: int) -> None:
    """Write `{safety,transfer,utility}/*.csv` into a folder; the prompts are drawn with the seed."""
    parts = {"safety": SAFETY_SETS, "transfer": TRANSFER_SETS}
    tables = {f"{part}/{name}": candidate_table(name, seed) for part, names in parts.items() for name in names}
    tables |= {f"utility/{task}": task_table(task, seed) for task in TASKS}
    _write_tables(folder, tables | {"utility/facts": fact_table()})


def write_persona_data(folder: Path, seed: int) -> None:
    """Write a persona organism's `threats/`: system prompts, scenarios, conversations; and its neutral `utility/`."""
    tables = {"threats/systems": system_table()}
    for threat in THREATS:
        tables[f"threats/{threat}"] = scenario_table(threat, seed)
        tables[f"threats/{threat}_turns"] = conversation_table(threat, seed)
    tables |= {f"utility/{task}": task_table(task, seed, draw_neutral_exercise) for task in NEUTRAL_TASKS}
    _write_tables(folder, tables)


def _write_tables(folder: Path, tables: dict[str, pandas.DataFrame]) -> None:
    for name, table in tables.items():
        path = folder / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False)


def _copy(tracked: Stage, folder: Path) -> dict:
    for name in tracked.manifest["files"]:
        shutil.copyfile(tracked / name, folder / name)
    return tracked.manifest["facts"]
