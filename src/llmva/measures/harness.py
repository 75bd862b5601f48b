"""lm-evaluation-harness around a chat model: its tasks, its evaluator, its log of samples; our way of answering.

The harness is slow to import, so this module is imported inside functions.
"""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path

import datasets
import lm_eval.tasks
import pandas
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.evaluator import evaluate
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text

from llmva.core.errors import InputError, first_line
from llmva.core.progress import library_bars
from llmva.engines.base import Engine
from llmva.engines.greedy import respond
from llmva.judging.thinking import read_answers
from llmva.models.batches import by_length, for_each_batch
from llmva.models.chat_model import ChatModel, encode_with_replies
from llmva.models.likelihood import score_columns
from llmva.models.templates import opens_thinking

STANDARD_TASKS = {"cola": "cola", "mnli": "mnli", "rte": "rte", "mrpc": "mrpc", "sst": "sst2", "gsm": "gsm8k"}


class HarnessModel(LM):
    """A chat model as the harness sees one; a context is always one user turn.

    The template and the padding are those of every other measurement, so a model that is edited or steered at
    the moment is measured as it is. The harness is to be called without `apply_chat_template`. Where a task sets no
    limit of its own, a reply has at most `max_new_tokens`.
    """

    def __init__(
        self, chat_model: ChatModel, *, batch_size: int, max_new_tokens: int, engine: Engine = respond
    ) -> None:
        super().__init__()
        self.engine = engine
        self.chat_model = chat_model
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answer each context greedily, then cut the reply at the task's stop words."""
        options = [normalize_gen_kwargs(request.args[1], self.max_new_tokens) for request in requests]
        if any(option["do_sample"] for option in options):
            raise InputError("generation_kwargs: do_sample: replies are greedy here; set do_sample to false")
        replies = [""] * len(requests)
        for limit in {option["max_gen_toks"] for option in options}:
            rows = [row for row, option in enumerate(options) if option["max_gen_toks"] == limit]
            prompts = [requests[row].args[0] for row in rows]
            texts = self.engine(self.chat_model, prompts, max_new_tokens=limit, batch_size=self.batch_size).texts
            # Of a thinking model the answer is what counts; one that never came says nothing.
            answers = [answer or "" for answer in read_answers(texts, opens_thinking(self.chat_model.tokenizer))]
            for row, text in zip(rows, answers, strict=True):
                replies[row] = postprocess_generated_text(text, options[row]["until"], None)
        return replies

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Score each continuation as the start of the reply to its context.

        Returns
        -------
        list of (float, bool)
            The log-likelihood in nats, summed over the continuation's tokens, and whether greedy decoding
            would write it. White space in front of a continuation is dropped: no reply begins with it.
        """
        contexts, continuations = zip(*(request.args for request in requests), strict=True)
        replies = [continuation.lstrip() for continuation in continuations]
        sequences, tails = encode_with_replies(self.chat_model.tokenizer, contexts, replies)
        scores = [(0.0, True)] * len(requests)

        def run(rows: list[int]) -> None:
            heads = [sequences[row][: -len(tails[row])] for row in rows]
            for row, score in zip(rows, self._score(heads, [tails[row] for row in rows]), strict=True):
                scores[row] = score

        for_each_batch([row for row in by_length(sequences) if tails[row]], self.batch_size, run)
        return scores

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Refuse: the likelihood of a bare text has no user turn."""
        raise InputError("output_type: loglikelihood_rolling: a chat model is asked, not read to; use another task")

    def _score(self, heads: list[list[int]], tails: list[list[int]]) -> list[tuple[float, bool]]:
        (scores,) = score_columns(self.chat_model, heads, [tails])
        return [(score.log_likelihood, score.is_greedy) for score in scores]


class LocalTask(ConfigurableTask):
    """A task of the harness over rows (prompt, taken as it is, and answer) that are here already.

    Nothing is fetched, no file or cache is written: `datasets.load_dataset`, the harness's own way, reports each load
    to a server, even that of a local CSV file. The task scores nothing (metric `bypass`); its logged samples hold
    reply and answer.
    """

    def __init__(self, name: str, rows: pandas.DataFrame) -> None:
        self._rows = rows
        super().__init__(
            config={
                "task": name,
                "output_type": "generate_until",
                "test_split": "test",
                "doc_to_text": "prompt",
                "doc_to_target": "answer",
                "num_fewshot": 0,
                "generation_kwargs": {"until": [], "do_sample": False},
                "metric_list": [{"metric": "bypass", "aggregation": "bypass", "higher_is_better": True}],
            }
        )

    def download(self, *_, **__) -> None:
        """Take the rows as the data set."""
        columns = {name: self._rows[name].tolist() for name in ("prompt", "answer")}
        self.dataset = {"test": datasets.Dataset.from_dict(columns)}

    def build_all_requests(self, **options) -> None:
        """Build the requests, without the progress bar: the harness has no switch for it."""
        with contextlib.redirect_stderr(io.StringIO()):
            super().build_all_requests(**options)


def load_standard_tasks() -> dict[str, Task]:
    """Load the harness's own definitions of the six tasks, by our names; their data come from the hub.

    Raises
    ------
    InputError
        When the data cannot be fetched.
    """
    shipped = Path(lm_eval.tasks.__file__).parent
    # An index of all fourteen thousand tasks would take many seconds.
    manager = lm_eval.tasks.TaskManager(include_defaults=False, include_path=[shipped / "glue", shipped / "gsm8k"])
    try:
        with library_bars():
            tasks = {task: manager.load([name])["tasks"][name] for task, name in STANDARD_TASKS.items()}
    except Exception as error:
        # The libraries' own errors for no network and no such set are of many kinds.
        raise InputError(
            f"standard tasks: cannot be fetched ({first_line(error)}); check the network and run again"
        ) from None
    for task in tasks.values():
        task.set_fewshot_seed(DEFAULT_OTHER_SEED)
    return tasks


def log_samples(model: HarnessModel, tasks: Mapping[str, Task], most: int | None = None) -> dict[str, list[dict]]:
    """Run tasks through the harness's evaluator and return its logged samples, by task, in the order of the data.

    With `most`, only the first so many rows of each task are run.
    """
    return evaluate(model, {"tasks": dict(tasks)}, limit=most, bootstrap_iters=0, log_samples=True)["samples"]
