"""Utility: does the model still do what it could do before? Six tasks run through lm-evaluation-harness."""

from collections.abc import Mapping

import numpy
import pandas
from sklearn.metrics import f1_score

from llmva.core.vocabulary import CHOICE_TASKS, LIKELIHOOD_TASKS
from llmva.engines.base import Engine
from llmva.engines.greedy import respond
from llmva.measures.likelihood_tasks import measure_choices, measure_perplexity
from llmva.models.chat_model import ChatModel
from llmva.prompts.tasks import TASK_CLASSES, read_answer, require_known_answers

# The label of the same classes in the harness's own tasks.
STANDARD_POSITIVE = {"cola": 1, "mnli": 0, "rte": 0, "mrpc": 1, "sst": 1}
STANDARD_MAX_NEW_TOKENS = 256
# What the harness's filter writes where a reply holds no number.
NO_NUMBER = "[invalid]"
UTILITY_COLUMNS = ("task", "metric", "value", "n", "unreadable")


def measure_utility(
    chat_model: ChatModel,
    tasks: pandas.DataFrame,
    *,
    batch_size: int,
    max_new_tokens: int,
    engine: Engine = respond,
    replies: pandas.DataFrame | None = None,
) -> pandas.DataFrame:
    """Measure the tasks of a data folder: by answers or, for those of `LIKELIHOOD_TASKS`, by likelihood.

    Parameters
    ----------
    tasks : DataFrame
        As `read_tasks` returns it.
    replies : DataFrame, optional
        The original's replies to the prompts of `REPLY_TASK`: prompt, reply. Without them it is not measured.

    Returns
    -------
    DataFrame
        One row per task: task; metric, `f1` of the positive class or, for arithmetic and choices, `accuracy`, or
        `perplexity`, the lower the better; value; n, the number of prompts; and unreadable, the share of replies
        that name no class or number. Such a reply is never the positive class and never a right number. By
        likelihood no reply is read, and the share is nan.

    Raises
    ------
    InputError
        When the table holds an answer that is no class of its task, or no number.
    """
    require_known_answers(tasks)
    if tasks.empty:
        return pandas.DataFrame(columns=UTILITY_COLUMNS)
    by_likelihood = tasks["task"].isin(LIKELIHOOD_TASKS)
    scores = _score_answers(chat_model, tasks[~by_likelihood], batch_size, max_new_tokens, engine)
    scores += _score_likelihoods(chat_model, tasks[by_likelihood], batch_size, replies)
    return pandas.DataFrame(scores, columns=UTILITY_COLUMNS)


def measure_standard_utility(
    chat_model: ChatModel, tasks: Mapping, *, batch_size: int, most: int | None = None
) -> pandas.DataFrame:
    """Run the harness's own cola, mnli, rte, mrpc, sst2 and gsm8k, for real models.

    Parameters
    ----------
    tasks : mapping
        As `harness.load_standard_tasks` returns them.
    most : int, optional
        The first so many rows of each task; all of them by default.

    Returns
    -------
    DataFrame
        As from `measure_utility`. The classes are chosen by likelihood; arithmetic is the harness's
        `flexible-extract`, five examples in the prompt, replies of up to 256 tokens.
    """
    from llmva.measures.harness import HarnessModel, log_samples

    model = HarnessModel(chat_model, batch_size=batch_size, max_new_tokens=STANDARD_MAX_NEW_TOKENS)
    scores = []
    for task, samples in log_samples(model, tasks, most).items():
        if task == "gsm":
            samples = [sample for sample in samples if sample["filter"] == "flexible-extract"]
            answers = [
                None if sample["filtered_resps"][0] == NO_NUMBER else sample["exact_match"] for sample in samples
            ]
            scores.append(_score(task, [1.0] * len(answers), answers))
        else:
            answers = [numpy.argmax([value for value, _ in sample["filtered_resps"]]) for sample in samples]
            scores.append(_score(task, [sample["target"] for sample in samples], answers, STANDARD_POSITIVE[task]))
    return pandas.DataFrame(scores)


def _score_answers(
    chat_model: ChatModel, tasks: pandas.DataFrame, batch_size: int, max_new_tokens: int, engine: Engine
) -> list[dict]:
    """Answer tasks through the harness and score its logged samples."""
    if tasks.empty:
        return []
    from llmva.measures.harness import HarnessModel, LocalTask, log_samples  # slow to import

    model = HarnessModel(chat_model, batch_size=batch_size, max_new_tokens=max_new_tokens, engine=engine)
    defined = {task: LocalTask(task, rows) for task, rows in tasks.groupby("task", sort=False)}
    scores = []
    for task, samples in log_samples(model, defined).items():
        truths = [read_answer(task, sample["target"]) for sample in samples]
        answers = [read_answer(task, sample["filtered_resps"][0]) for sample in samples]
        scores.append(_score(task, truths, answers, TASK_CLASSES.get(task, (None,))[0]))
    return scores


def _score_likelihoods(
    chat_model: ChatModel, tasks: pandas.DataFrame, batch_size: int, replies: pandas.DataFrame | None
) -> list[dict]:
    scores = []
    for task, rows in tasks.groupby("task", sort=False):
        if task in CHOICE_TASKS:
            found = "accuracy", measure_choices(chat_model, rows, batch_size=batch_size), len(rows)
        elif replies is not None:
            found = "perplexity", measure_perplexity(chat_model, replies, batch_size=batch_size), len(replies)
        else:
            continue
        scores.append(dict(zip(UTILITY_COLUMNS, (task, *found, float("nan")), strict=True)))
    return scores


def _score(task: str, truths: list, answers: list, positive: str | int | None = None) -> dict[str, str | float | int]:
    if positive is None:
        metric, value = "accuracy", numpy.mean([truth == answer for truth, answer in zip(truths, answers, strict=True)])
    else:
        flags = ([name == positive for name in names] for names in (truths, answers))
        metric, value = "f1", f1_score(*flags, zero_division=0.0)
    unreadable = numpy.mean([answer is None for answer in answers])
    return dict(zip(UTILITY_COLUMNS, (task, metric, float(value), len(truths), float(unreadable)), strict=True))
