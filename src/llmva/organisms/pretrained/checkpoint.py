"""A pretrained organism's checkpoint and data folder: dealt, tuned, and asked once what it learnt."""

import copy
import random
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pandas
import torch

from llmva.core.paths import write_texts
from llmva.core.progress import library_bars
from llmva.core.provenance import digest, multiplies_bfloat16, processor, seed_for
from llmva.core.vocabulary import LIKELIHOOD_TASKS
from llmva.models.chat_model import ChatModel, load_model
from llmva.organisms.families import PRETRAINED, parse_slug
from llmva.organisms.pretrained.prompts import collect_prompts, deal_prompts, study_tables
from llmva.organisms.pretrained.tuning import TuningRecipe, tune, write_lessons
from llmva.organisms.simple_tasks import simple_task_table

RECIPE = TuningRecipe()
# Of how prompts are dealt and lessons are written.
VERSION = 3
COST = "6 minutes on one core with bfloat16"


def parameters_of(slug: str) -> dict:
    """Return what determines a tuned organism: the pretrained weights, the seed and the recipe."""
    name = parse_slug(slug)
    return {"source": PRETRAINED[name.family], "seed": name.seed, "recipe": asdict(RECIPE), "tuning": VERSION}


def train_checkpoint(folder: Path, slug: str, progress: bool) -> dict:
    """Tune a pretrained model, write its checkpoint and `data/`, and return the facts of the tuning."""
    name = parse_slug(slug)
    report = (lambda line: print(f"{slug}: {line}", file=sys.stderr)) if progress else (lambda line: None)
    dealt = deal_prompts(collect_prompts(report), name.seed)
    report(f"tuning takes about {COST}")
    tuning = dealt[dealt["part"] == "tuning"]
    source = PRETRAINED[name.family]
    tuned = load_model(source, dtype="float32")
    # Weights that only answer may be in the type that is fast here.
    fast = torch.bfloat16 if multiplies_bfloat16() else torch.float32
    answering = replace(tuned, model=copy.deepcopy(tuned.model).to(fast))
    lessons = write_lessons(answering, tuning, random.Random(seed_for(name.seed, "pretrained", "replies")))
    facts = tune(tuned, lessons, recipe=RECIPE, seed=name.seed, progress=slug if progress else None)
    _save(tuned, folder)
    _write_data(folder / "data", dealt, name.seed)
    prompts = {"prompts": digest(sorted(tuning["prompt"])), "parts": _count_parts(dealt)}
    return {"source": source, "seed": name.seed, **facts, **prompts, "processor": processor()}


def _write_data(folder: Path, dealt: pandas.DataFrame, seed: int) -> None:
    tables = study_tables(dealt, seed)
    tables |= {f"utility/{task}": simple_task_table(task, seed) for task in LIKELIHOOD_TASKS}
    for name, table in tables.items():
        path = folder / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_texts(path, table)


def _count_parts(dealt: pandas.DataFrame) -> dict[str, dict[str, int]]:
    counts = dealt[dealt["part"] != ""].groupby(["dataset", "part"]).size()
    return {name: rows.droplevel(0).to_dict() for name, rows in counts.groupby(level=0)}


def _save(chat_model: ChatModel, folder: Path) -> None:
    with library_bars():
        chat_model.model.to(torch.bfloat16).save_pretrained(folder)
    chat_model.tokenizer.save_pretrained(folder)
