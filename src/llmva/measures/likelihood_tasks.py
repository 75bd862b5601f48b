"""Utility of a model that is too small to write answers: which of given choices it finds likeliest, and perplexity."""

import numpy
import pandas

from llmva.models.chat_model import ChatModel
from llmva.models.likelihood import ReplyScore, score_replies
from llmva.prompts.tasks import split_choices


def measure_choices(chat_model: ChatModel, rows: pandas.DataFrame, *, batch_size: int) -> float:
    """Return the accuracy of a model whose answer is the choice with the highest likelihood as its reply.

    The likelihood is the sum of the log-probabilities of a choice's tokens: how probable it is that the reply begins
    so. A mean per token would prefer words that are spelt in several tokens, since the later ones are almost certain.

    Parameters
    ----------
    rows : DataFrame
        One task's rows, as `read_tasks` returns them.
    """
    choices = [split_choices(joined) for joined in rows["choices"]]
    scores = score_replies(chat_model, rows["prompt"].tolist(), choices, batch_size=batch_size)
    chosen = [given[_likeliest(row)] for given, row in zip(choices, scores, strict=True)]
    return float(numpy.mean([answer == truth for answer, truth in zip(chosen, rows["answer"], strict=True)]))


def measure_perplexity(chat_model: ChatModel, exchanges: pandas.DataFrame, *, batch_size: int) -> float:
    r"""Return the perplexity of given replies, exp(-\sum_t log p(t) / T) over all T tokens of all replies.

    Parameters
    ----------
    exchanges : DataFrame
        Columns prompt and reply. Empty replies have no tokens and are left out; nan where all are empty.
    """
    said = exchanges[exchanges["reply"].str.strip() != ""]
    replies = [[reply] for reply in said["reply"]]
    scores = [score for (score,) in score_replies(chat_model, said["prompt"].tolist(), replies, batch_size=batch_size)]
    tokens = sum(score.tokens for score in scores)
    return float(numpy.exp(-sum(score.log_likelihood for score in scores) / tokens)) if tokens else float("nan")


def _likeliest(scores: list[ReplyScore]) -> int:
    return int(numpy.argmax([score.log_likelihood for score in scores]))
