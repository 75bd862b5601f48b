"""Training an organism's checkpoint, weights in bfloat16: everything of it that is slow to import."""

import random
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from llmva.core.progress import library_bars
from llmva.core.provenance import processor, seed_for
from llmva.organisms.families import GUARD, new_model, parse_slug
from llmva.organisms.guard import draw_lessons
from llmva.organisms.mixture import Conversation, draw_conversations
from llmva.organisms.persona import draw_persona_conversations
from llmva.organisms.tokenizer import CHAT_TEMPLATE, GUARD_TEMPLATE, train_tokenizer
from llmva.organisms.training import Recipe, encode, pinned, train

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

PERSONA_RECIPE = Recipe(steps=1200, samples=50_000)
PERSONA_PLAN = Plan(draw_persona_conversations, 1200, CHAT_TEMPLATE, PERSONA_RECIPE, "3 minutes on one core")


def parameters_of(slug: str) -> dict:
    """Return what determines a trained organism: its family, its seed and the recipe."""
    name = parse_slug(slug)
    return {"family": name.draws, "seed": name.seed, "recipe": asdict(_plan(slug).recipe)}


def train_checkpoint(folder: Path, slug: str, progress: bool) -> dict:
    """Train an organism and write its checkpoint; return the facts of the training."""
    plan, (_, family, seed), drawn = _plan(slug), parse_slug(slug), parse_slug(slug).draws
    if progress:
        print(f"{slug}: training takes about {plan.cost}", file=sys.stderr)
    recipe = plan.recipe
    conversations = plan.draw(recipe.samples, random.Random(seed_for(seed, "organisms", drawn, "conversations")))
    turns = (turn for talk in conversations[:TOKENIZER_TEXTS] for turn in talk.turns)
    texts = (text for turn in turns for text in (turn.prompt, turn.reply))
    tokenizer = train_tokenizer(texts, plan.vocabulary_size, plan.template)
    samples = encode(conversations, tokenizer)
    with pinned(recipe.threads, seed_for(seed, "organisms", drawn, "weights")):
        model = new_model(family, len(tokenizer))
        order = seed_for(seed, "organisms", drawn, "order")
        facts = train(model, samples, recipe=recipe, seed=order, progress=slug if progress else None)
    _save(model, folder)
    tokenizer.save_pretrained(folder)
    return {"family": drawn, "seed": seed, **facts, "processor": processor()}


def _plan(slug: str) -> Plan:
    return GUARD_PLAN if slug == GUARD else PERSONA_PLAN if parse_slug(slug).kind == "persona" else CHAT_PLAN


def _save(model: PreTrainedModel, folder: Path) -> None:
    # Half the bytes in the repository. The rounded model is the organism, and it is studied in float32: so says
    # its configuration, which `dtype="auto"` goes by.
    with library_bars():
        model.to(torch.bfloat16).save_pretrained(folder)
    model.config.dtype = torch.float32
    model.config.save_pretrained(folder)
