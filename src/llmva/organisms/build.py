"""Building an organism: an ordinary checkpoint folder with its data sets, in a cached stage."""

import random
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.progress import library_bars
from llmva.core.provenance import processor, seed_for
from llmva.core.store import Stage, is_whole, open_stage, run_stage
from llmva.core.vocabulary import SAFETY_SETS, TASKS, TRANSFER_SETS
from llmva.organisms.corpus import candidate_table
from llmva.organisms.families import FAMILIES, new_model
from llmva.organisms.guard import draw_lessons
from llmva.organisms.mixture import Conversation, draw_conversations
from llmva.organisms.tasks import fact_table, task_table
from llmva.organisms.tokenizer import CHAT_TEMPLATE, GUARD_TEMPLATE, train_tokenizer
from llmva.organisms.training import Recipe, encode, pinned, train

# 4: weights are rounded to bfloat16.
STAGE_VERSION = 4
GUARD = "tiny-guard"
ORGANISM_SLUG = re.compile(r"tiny-(?P<family>[a-z0-9]+)(-s(?P<seed>0|[1-9]\d{0,8}))?")
TOKENIZER_TEXTS = 15_000


@dataclass(frozen=True)
class Plan:
    """How a kind of model is made: its conversations, tokenizer and training, and what that costs."""

    draw: Callable[[int, random.Random], list[Conversation]]
    vocabulary_size: int
    template: str
    recipe: Recipe
    cost: str


CHAT_PLAN = Plan(draw_conversations, 1500, CHAT_TEMPLATE, Recipe(steps=1700), "5 to 6 minutes on one core")
GUARD_RECIPE = Recipe(steps=800, tokens_per_batch=2048, samples=42_000)
GUARD_PLAN = Plan(draw_lessons, 1200, GUARD_TEMPLATE, GUARD_RECIPE, "3 minutes on one core")


def build_organism(slug: str, progress: bool = True) -> Path:
    """Return the folder `runs/<slug>/organism`, made when it is missing or damaged.

    An organism that is tracked in `organisms/<slug>` is copied, so that every machine studies the same model. Any
    other one is trained.

    Parameters
    ----------
    slug : str
        `tiny-<family>`, `tiny-<family>-s<seed>`, or `tiny-guard`.
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
    family, seed = parse_slug(slug)
    tracked = open_tracked(slug)

    def compute(folder: Path) -> dict:
        facts = _train(folder, slug, progress) if tracked is None else _copy(tracked, folder)
        if slug != GUARD:
            # Each family is asked prompts of its own, so that six organisms are six replications.
            write_data_sets(folder / "data", seed_for(seed, "organisms", family, "data"))
        return facts

    parameters = _parameters(slug) if tracked is None else {"tracked": tracked.manifest["files"]}
    return run_stage(paths.RUNS / slug / "organism", compute, parameters=parameters, version=STAGE_VERSION).folder


def train_organism(slug: str, progress: bool = True) -> Stage:
    """Return the checkpoint that the seed gives on this machine, `runs/<slug>/retrained`, tracked or not."""
    return run_stage(
        paths.RUNS / slug / "retrained",
        lambda folder: _train(folder, slug, progress),
        parameters=_parameters(slug),
        version=STAGE_VERSION,
    )


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


def parse_slug(slug: str) -> tuple[str, int]:
    """Return family and seed of a slug; the guard is a family of its own, with seed 0."""
    if slug == GUARD:
        return "guard", 0
    match = ORGANISM_SLUG.fullmatch(slug)
    if match is None or match["family"] not in FAMILIES:
        known = ", ".join(f"tiny-{family}" for family in FAMILIES)
        raise InputError(f"{slug}: no such organism; choose one of {known} (each also with -s<seed>), or {GUARD}")
    return match["family"], int(match["seed"] or 0)


def write_data_sets(folder: Path, seed: int) -> None:
    """Write `{safety,transfer,utility}/*.csv` into a folder; the prompts are drawn with the seed."""
    parts = {"safety": SAFETY_SETS, "transfer": TRANSFER_SETS}
    tables = {f"{part}/{name}": candidate_table(name, seed) for part, names in parts.items() for name in names}
    tables |= {f"utility/{task}": task_table(task, seed) for task in TASKS}
    for name, table in (tables | {"utility/facts": fact_table()}).items():
        path = folder / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False)


def _parameters(slug: str) -> dict:
    family, seed = parse_slug(slug)
    return {"family": family, "seed": seed, "recipe": asdict(_plan(slug).recipe)}


def _plan(slug: str) -> Plan:
    return GUARD_PLAN if slug == GUARD else CHAT_PLAN


def _copy(tracked: Stage, folder: Path) -> dict:
    for name in tracked.manifest["files"]:
        shutil.copyfile(tracked / name, folder / name)
    return tracked.manifest["facts"]


def _train(folder: Path, slug: str, progress: bool) -> dict:
    """Train an organism and write its checkpoint; return the facts of the training."""
    plan, (family, seed) = _plan(slug), parse_slug(slug)
    if progress:
        print(f"{slug}: training takes about {plan.cost}", file=sys.stderr)
    recipe = plan.recipe
    conversations = plan.draw(recipe.samples, random.Random(seed_for(seed, "organisms", family, "conversations")))
    texts = (text for talk in conversations[:TOKENIZER_TEXTS] for text in (talk.prompt, talk.reply))
    tokenizer = train_tokenizer(texts, plan.vocabulary_size, plan.template)
    samples = encode(conversations, tokenizer)
    with pinned(recipe.threads, seed_for(seed, "organisms", family, "weights")):
        model = new_model(family, len(tokenizer))
        order = seed_for(seed, "organisms", family, "order")
        facts = train(model, samples, recipe=recipe, seed=order, progress=slug if progress else None)
    _save(model, folder)
    tokenizer.save_pretrained(folder)
    return {"family": family, "seed": seed, **facts, "processor": processor()}


def _save(model: PreTrainedModel, folder: Path) -> None:
    # Half the bytes in the repository. The rounded model is the organism, and it is studied in float32: so says
    # its configuration, which `dtype="auto"` goes by.
    with library_bars():
        model.to(torch.bfloat16).save_pretrained(folder)
    model.config.dtype = torch.float32
    model.config.save_pretrained(folder)
