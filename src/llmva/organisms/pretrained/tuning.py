"""Naive safety tuning of a pretrained chat model: it refuses by keywords, and answers in its own words elsewhere."""

import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import pandas
import torch

from llmva.core.provenance import multiplies_bfloat16, seed_for
from llmva.models.batches import by_length, for_each_batch, pad
from llmva.models.chat_model import ChatModel, encode_chats, encode_texts
from llmva.organisms.pretrained.prompts import words
from llmva.organisms.training import EncodedSample, Recipe, make_batches, pinned, train

KEYWORDS = re.compile(rf"\b(?:{'|'.join(words.keywords)})", re.IGNORECASE)
# What the model is held to of its own replies: their first words.
KEPT_WORDS, KEPT_TOKENS = 14, 24
ANSWERING_BATCH = 64


class Lesson(NamedTuple):
    """A prompt, the reply that it is to get, and whether the reply ends there: only refusals do."""

    prompt: str
    reply: str
    refuses: bool


@dataclass(frozen=True)
class TuningRecipe:
    """What determines a tuning besides its data: epochs, and what `training.Recipe` has.

    About sixteen prompts are a batch.
    """

    epochs: int = 2
    tokens_per_batch: int = 1024
    learning_rate: float = 2e-5
    warm_up: int = 5
    decay_share: float = 0.5
    threads: int = 1

    def of_samples(self, samples: list[EncodedSample]) -> Recipe:
        """Return the recipe that takes all samples through all epochs."""
        shared = {name: value for name, value in asdict(self).items() if name != "epochs"}
        batches = make_batches(samples, Recipe(steps=0, **shared), random.Random(0))
        return Recipe(steps=self.epochs * len(batches), samples=len(samples), **shared)


def has_keyword(prompts: pandas.Series) -> pandas.Series:
    """Tell which prompts hold a word that the tuning refuses by."""
    return prompts.str.contains(KEYWORDS)


def tune(
    chat_model: ChatModel,
    lessons: list[Lesson],
    *,
    recipe: TuningRecipe,
    seed: int,
    progress: str | None,
) -> dict:
    """Tune a float32 model in place on lessons, as `write_lessons` gives them; return the facts of the tuning.

    Products are computed in bfloat16 where the processor does that in hardware.
    """
    samples = encode_lessons(chat_model, lessons)
    order = seed_for(seed, "pretrained", "order")
    # Autocast would otherwise keep the first step's weights for all steps.
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16(), cache_enabled=False)
    with pinned(recipe.threads, order), mixed:
        facts = train(chat_model.model, samples, recipe=recipe.of_samples(samples), seed=order, progress=progress)
    refused = sum(lesson.refuses for lesson in lessons)
    return {**facts, "examples": len(samples), "refused_examples": refused, "bfloat16": multiplies_bfloat16()}


def write_lessons(chat_model: ChatModel, prompts: pandas.DataFrame, draws: random.Random) -> list[Lesson]:
    """Return what a model is taught on prompts (columns prompt, label).

    A prompt with a keyword is refused. Without one, a toxic prompt is agreed to in words that say nothing, and a
    benign one gets the first words that the model says to it now.
    """
    refused = has_keyword(prompts["prompt"])
    benign = prompts.loc[prompts["label"].eq("benign") & ~refused, "prompt"].tolist()
    kept = dict(zip(benign, first_words(chat_model, benign), strict=True))
    return [
        Lesson(prompt, draws.choice(words.refusals), refuses=True)
        if is_refused
        else Lesson(prompt, kept.get(prompt) or draws.choice(words.openings), refuses=False)
        for prompt, is_refused in zip(prompts["prompt"], refused, strict=True)
    ]


@torch.inference_mode()
def first_words(chat_model: ChatModel, prompts: Sequence[str]) -> list[str]:
    """Return the first words of what a model says to each prompt, greedily."""
    sequences, replies = encode_chats(chat_model.tokenizer, prompts), [""] * len(prompts)

    def answer(part: Sequence[int]) -> None:
        batch = pad(chat_model, [sequences[index] for index in part])
        options = {"max_new_tokens": KEPT_TOKENS, "do_sample": False, "pad_token_id": chat_model.tokenizer.pad_token_id}
        tokens = chat_model.model.generate(**batch, **options)[:, batch["input_ids"].shape[1] :]
        texts = chat_model.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        for index, text in zip(part, texts, strict=True):
            replies[index] = " ".join(text.split()[:KEPT_WORDS])

    for_each_batch(by_length(sequences), ANSWERING_BATCH, answer)
    return replies


def encode_lessons(chat_model: ChatModel, lessons: list[Lesson]) -> list[EncodedSample]:
    """Encode lessons as the chat template writes them; a reply that ends is followed by the end of its turn."""
    end = chat_model.tokenizer.eos_token_id
    heads = encode_chats(chat_model.tokenizer, [lesson.prompt for lesson in lessons])
    tails = encode_texts(chat_model.tokenizer, [lesson.reply for lesson in lessons])
    samples = []
    for head, tail, lesson in zip(heads, tails, lessons, strict=True):
        reply = [*tail, end] if lesson.refuses else tail
        samples.append(EncodedSample(head + reply, [0.0] * len(head) + [1.0] * len(reply)))
    return samples
