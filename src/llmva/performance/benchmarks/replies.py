"""What greedy decoding with drafts gains on `generate`, and what else was tried on replies and verdicts."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import numpy
import pandas
import torch

from llmva.edits.edited_model import EditedModel
from llmva.engines import greedy, hugging_face
from llmva.engines.base import Responses
from llmva.engines.drafts import Drafts
from llmva.judging.guard import GuardJudge
from llmva.models import batches
from llmva.models.activations import Capture
from llmva.models.chat_model import ChatModel
from llmva.models.reading import read_activations
from llmva.performance.timing import Row, ratio_of_seconds, ratio_of_times, timed
from llmva.prompts.pools import draw_sample
from llmva.study.loop_variants import read_loop, run_alignment
from llmva.study.study import Study

FINISHED = "metrics.json"


def reply_rows(study: Study, sizes: dict[str, int]) -> Iterator[Row]:
    """Compare the engines on two neighbouring iterations of the paper's loop, and ways to read and to judge."""
    runs, loop = sizes["runs"], read_loop(run_alignment(study))
    # Where validation chose the original, there is no edited model before it.
    now = max(1, loop.choice.best_iteration)
    sample = draw_sample(study.pool, study.params.sample_per_dataset, study.params.seed, now)
    prompts = pandas.concat([sample, study.validation])["prompt"].tolist()
    setting = f"{study.params.slug}, {len(prompts)} prompts with capture, iteration {now} of the paper's loop"
    with EditedModel(study.chat_model.writers) as edited:
        known = Drafts()
        edited.apply(loop.log.at_iteration(now - 1))
        greedy.respond(study.chat_model, prompts, **_limits(study), drafts=known)
        edited.apply(loop.log.at_iteration(min(now, len(loop.log))))
        for name, drafts in {"greedy": None, "greedy with the last look's replies as drafts": known}.items():
            ratio, texts, same = benchmark_engine(study.chat_model, prompts, drafts, runs=runs, **_limits(study))
            yield f"replies, generate over {name}, time", setting, ratio, "", runs
            yield f"replies, {name}, share with generate's text", setting, texts, ">=1", 1
            yield f"replies, {name}, generate's bits captured", setting, float(same), ">=1", 1
    yield from _reading_rows(study, runs)
    yield from _guard_rows(study, runs)
    yield from count_new(study)


def benchmark_engine(
    chat_model: ChatModel, prompts: list[str], drafts: Drafts | None, *, runs: int, **limits: int
) -> tuple[float, float, bool]:
    """Return how many times longer `generate` takes, the share of equal texts, and whether the captured bits are equal.

    Drafts are as they were at each run: what greedy decoding adds to them would be right throughout.
    """
    options = {**limits, "capture": Capture()}

    def write(engine, **more) -> Responses:
        return engine(chat_model, prompts, **options, **more)

    def seconds() -> float:
        # Copied before the clock runs.
        copied = Drafts({prompt: list(replies) for prompt, replies in drafts._known.items()}) if drafts else None
        return timed(partial(write, greedy.respond, drafts=copied))[0]

    ratio = ratio_of_seconds(lambda: timed(partial(write, hugging_face.respond))[0], seconds, runs)
    usual, ours = write(hugging_face.respond), write(greedy.respond, drafts=drafts)
    texts = numpy.mean([one == other for one, other in zip(usual.texts, ours.texts, strict=True)])
    outputs = ours.activations.outputs
    same = all(numpy.array_equal(rows, outputs[name]) for name, rows in usual.activations.outputs.items())
    return ratio, float(texts), same


def count_new(study: Study) -> Iterator[Row]:
    """Yield what a study's looks repeat: replies said to the same prompt by an earlier look, and exchanges judged."""
    folders = sorted((study.folder / "iterations").glob(f"*/{FINISHED}"), key=lambda path: path.stat().st_mtime)
    said, repeated, total = set(), 0, 0
    for path in folders:
        replies = pandas.read_csv(path.with_name("responses.csv"), dtype=str, keep_default_na=False)
        pairs = list(zip(replies["id"], replies["response"], strict=True))
        repeated, total = repeated + sum(pair in said for pair in pairs), total + len(pairs)
        said.update(pairs)
    setting = f"{study.params.slug}, {len(folders)} looks of the study's loops"
    yield "replies, said before to the same prompt, share", setting, repeated / max(1, total), "", 1
    yield "verdicts, asked of the guard, share", setting, len(said) / max(1, total), "", 1


def _reading_rows(study: Study, runs: int) -> Iterator[Row]:
    exchanges = study.neutral["prompt"].tolist(), study.neutral["reply"].tolist()
    capture = Capture(outputs=False, inputs=True, final=False)

    def read() -> None:
        read_activations(study.chat_model, *exchanges, capture=capture, batch_size=study.params.generation.batch_size)

    def read_rows() -> None:
        with patch.object(batches, "READ_TOKENS", 2**62):
            read()

    setting = f"{len(exchanges[0])} neutral exchanges, {study.params.generation.batch_size} rows a batch"
    setting += f" over {batches.READ_TOKENS} tokens a batch"
    yield (
        "reading, batches of rows over batches of tokens, time",
        setting,
        ratio_of_times(read_rows, read, runs),
        "",
        runs,
    )


def _guard_rows(study: Study, runs: int) -> Iterator[Row]:
    if not isinstance(study.judge, GuardJudge):
        return
    paths = sorted((study.folder / "iterations").glob("*/responses.csv"))
    said = pandas.concat([pandas.read_csv(path, dtype=str, keep_default_na=False) for path in paths])
    pairs = said.merge(study.pool[["id", "label", "prompt"]], on="id").drop_duplicates(["prompt", "response"])
    exchanges = pairs["prompt"].tolist(), pairs["response"].tolist()
    usual = study.judge
    ways = {"generate": replace(usual, engine=hugging_face.respond), "bfloat16": _in_bfloat16(usual)}
    setting = f"{len(pairs)} exchanges of the study's loops"
    asked = {name: partial(way.judge, *exchanges) for name, way in {"greedy": usual, **ways}.items()}
    yield (
        "guard, generate over greedy, time",
        setting,
        ratio_of_times(asked["generate"], asked["greedy"], runs),
        "",
        runs,
    )
    yield (
        "guard, float32 over bfloat16, time",
        setting,
        ratio_of_times(asked["greedy"], asked["bfloat16"], runs),
        "",
        runs,
    )
    lines = {name: judge() for name, judge in asked.items()}
    for name in ways:
        same = numpy.mean([one == other for one, other in zip(lines["greedy"], lines[name], strict=True)])
        yield f"guard, share of lines as with {name}", setting, float(same), ">=1" if name == "generate" else "", 1
    verdicts = {
        name: [usual.verdict(raw, label) for raw, label in zip(lines[name], pairs["label"], strict=True)]
        for name in ("greedy", "bfloat16")
    }
    same = numpy.mean([one == other for one, other in zip(*verdicts.values(), strict=True)])
    yield "guard, share of verdicts as in bfloat16", setting, float(same), "", 1


def _in_bfloat16(judge: GuardJudge) -> GuardJudge:
    guard = replace(judge.guard, model=copy.deepcopy(judge.guard.model).to(torch.bfloat16))
    return replace(judge, guard=guard)


def _limits(study: Study) -> dict[str, int]:
    return study.params.generation.model_dump()
