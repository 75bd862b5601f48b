"""Where the time of a look goes: six looks of LLM-VA-R, taken apart, in the usual way and in ours."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from llmva.core.text_cache import TextCache
from llmva.edits.edited_model import EditedModel
from llmva.engines import greedy, hugging_face
from llmva.engines.memory import ReplyMemory
from llmva.judging import degeneracy
from llmva.judging.guard import GuardJudge
from llmva.measures.divergence import Divergence
from llmva.method import iteration, loop
from llmva.method.iteration import Observer
from llmva.method.loop import align
from llmva.models import batches
from llmva.performance.timing import Row
from llmva.study.loop_variants import LLM_VA_R
from llmva.study.study import Study

LOOKS = 6
REPLIES, PREFILL, DECODING = "replies, around the passes", "replies, prefill", "replies, decoding"
# Whose time is whose; what they call counts for them, unless it has a part of its own.
PARTS = {
    REPLIES: [(greedy, "write_replies"), (hugging_face, "respond")],
    "guard": [(GuardJudge, "judge")],
    "surprise": [(degeneracy, "reply_surprise")],
    "divergence": [(Divergence, "measure")],
    "neutral text": [(Observer, "neutral_inputs")],
    "SVMs": [(iteration, "fit_all")],
    "edits": [(Observer, "_ridge_inputs"), (loop, "next_edits"), (EditedModel, "apply")],
}
OTHER = "all else"


def look_rows(study: Study, sizes: dict[str, int]) -> Iterator[Row]:
    """Yield the seconds of each part of a look, with `generate` in batches of rows, and as studies look now."""
    for way, usual in {"generate, rows": True, "greedy, tokens": False}.items():
        parts = profile_looks(study, usual=usual)
        for part in (PREFILL, DECODING, *PARTS, OTHER):
            setting = f"{study.params.slug}, mean of {LOOKS} looks of LLM-VA-R; {way}"
            yield f"look, {part}, seconds", setting, parts[part] / LOOKS, "", 1


def profile_looks(study: Study, *, usual: bool) -> Counter[str]:
    """Return the seconds of each part of the first looks of LLM-VA-R.

    Both ways know the original's verdicts and surprises, as a study does, and ours its replies as well. The usual way
    answers with `generate`, and reads in batches of as many rows as it answers.
    """
    examiner = fresh_examiner(study, language=True)
    examiner.examine(study.pool)
    settings = study.settings(max(study.params.probe.l_select), LOOKS - 1, **LLM_VA_R.changes)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if usual:
            judge = replace(examiner.judge, engine=_generate)
            examiner = replace(examiner, engine=_generate, judge=judge)
            stack.enter_context(patch.object(batches, "READ_TOKENS", 2**62))
        parts = stack.enter_context(timed_parts(study.chat_model.model))
        start = time.perf_counter()
        align(examiner, study.pool, settings, folder=Path(folder), upstream=(), neutral=study.neutral)
        parts[OTHER] += time.perf_counter() - start - sum(parts.values())
    return parts


def fresh_examiner(study: Study, *, language: bool):
    """Return the study's examiner with empty caches, with or without the check for broken language."""
    examiner = study.examiner if language else study.plain_examiner
    fresh = replace(examiner, cache=TextCache(None), engine=ReplyMemory().respond)
    return replace(fresh, degeneracy=replace(examiner.degeneracy, cache=TextCache(None))) if language else fresh


@contextmanager
def timed_parts(model) -> Iterator[Counter[str]]:
    """Add up the seconds that each of `PARTS` takes inside the block, and, of replies, the model's passes."""
    seconds, running = Counter(), []

    def watch(part: Callable[[dict], str], function: Callable) -> Callable:
        def watched(*arguments, **options):
            running.append([part(options), 0.0])
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                taken = time.perf_counter() - start
                name, inside = running.pop()
                seconds[name] += taken - inside
                if running:
                    running[-1][1] += taken

        return watched

    def of_pass(options: dict) -> str:
        # A pass belongs to whoever asked for it: only those of replies have parts of their own.
        if not running or running[-1][0] != REPLIES:
            return running[-1][0] if running else OTHER
        cache = options.get("past_key_values")
        return DECODING if cache is not None and cache.get_seq_length() else PREFILL

    with ExitStack() as stack:
        for part, functions in PARTS.items():
            for owner, name in functions:
                watched = watch(lambda _, part=part: _within(running, part), getattr(owner, name))
                stack.enter_context(patch.object(owner, name, watched))
        stack.enter_context(patch.object(model, "forward", watch(of_pass, model.forward)))
        yield seconds


def _generate(*arguments, **options):
    # Looked up when it is called, so that the clock is around it.
    return hugging_face.respond(*arguments, **options)


def _within(running: list, part: str) -> str:
    # The guard answers with an engine as well.
    return running[-1][0] if running and running[-1][0] == "guard" else part
