"""Building an organism: an ordinary checkpoint folder with its data sets, in a cached stage."""

import random
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.progress import library_bars
from llmva.core.provenance import seed_for
from llmva.core.store import run_stage
from llmva.core.vocabulary import SAFETY_SETS, TASKS, TRANSFER_SETS
from llmva.organisms.corpus import candidate_table
from llmva.organisms.families import FAMILIES, new_model
from llmva.organisms.guard import draw_lessons
from llmva.organisms.mixture import Conversation, draw_conversations
from llmva.organisms.tasks import fact_table, task_table
from llmva.organisms.tokenizer import CHAT_TEMPLATE, GUARD_TEMPLATE, train_tokenizer
from llmva.organisms.training import Recipe, encode, pinned, train

STAGE_VERSION = 3
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
    """Return the folder `runs/<slug>/organism`, training the organism only when it is missing or damaged.

    Parameters
    ----------
    slug : str
        `tiny-<family>`, `tiny-<family>-s<seed>`, or `tiny-guard`.
    progress : bool
        Announce the cost and show a progress bar, on standard error.

    Returns
    -------
    Path
        A checkpoint folder for `AutoModelForCausalLM` and `AutoTokenizer`, with `manifest.json`; an
        organism's also holds `data/{safety,transfer,utility}/*.csv`.

    Raises
    ------
    InputError
        When the slug names no family.
    """
    family, seed = parse_slug(slug)
    plan = GUARD_PLAN if slug == GUARD else CHAT_PLAN

    def compute(folder: Path) -> dict:
        if progress:
            print(f"{slug}: training takes about {plan.cost}", file=sys.stderr)
        facts = _train_checkpoint(folder, family, seed, plan, slug if progress else None)
        if slug != GUARD:
            # Each family is asked prompts of its own, so that six organisms are six replications.
            write_data_sets(folder / "data", seed_for(seed, "organisms", family, "data"))
        return {"family": family, "seed": seed, **facts}

    parameters = {"family": family, "seed": seed, "recipe": asdict(plan.recipe)}
    return run_stage(paths.RUNS / slug / "organism", compute, parameters=parameters, version=STAGE_VERSION).folder


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


def _train_checkpoint(folder: Path, family: str, seed: int, plan: Plan, progress: str | None) -> dict:
    recipe = plan.recipe
    conversations = plan.draw(recipe.samples, random.Random(seed_for(seed, "organisms", family, "conversations")))
    texts = (text for talk in conversations[:TOKENIZER_TEXTS] for text in (talk.prompt, talk.reply))
    tokenizer = train_tokenizer(texts, plan.vocabulary_size, plan.template)
    samples = encode(conversations, tokenizer)
    with pinned(recipe.threads, seed_for(seed, "organisms", family, "weights")):
        model = new_model(family, len(tokenizer))
        order = seed_for(seed, "organisms", family, "order")
        facts = train(model, samples, recipe=recipe, seed=order, progress=progress)
    with library_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return facts
