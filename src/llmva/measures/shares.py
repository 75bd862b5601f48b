"""What a score is worth: the share of the original's that it is, and what chance alone would score."""

from collections.abc import Sequence

import numpy
import pandas

from llmva.core.vocabulary import CHOICE_TASKS, REPLY_TASK
from llmva.prompts.tasks import split_choices


def share_kept(scores: pandas.DataFrame, original: pandas.Series | pandas.DataFrame) -> pandas.DataFrame:
    """Return scores, one column per task, as shares of the original's; see `shares_of`.

    Parameters
    ----------
    original : Series or DataFrame
        The original's, by task; as a frame, in the rows of the scores.
    """
    tasks = list(original.columns if isinstance(original, pandas.DataFrame) else original.index)
    shares = shares_of(scores[tasks].to_numpy(float), original.to_numpy(float), tasks)
    return pandas.DataFrame(shares, index=scores.index, columns=scores[tasks].columns)


def shares_of(values: numpy.ndarray, originals: numpy.ndarray, tasks: Sequence[str]) -> numpy.ndarray:
    """Return the share of the original's value that is kept.

    A perplexity is better the lower it is: of it the share is original / value, and at most 1.

    Parameters
    ----------
    values, originals : ndarray of float
        Of shapes that broadcast with one another's, tasks last.
    tasks : sequence of str
        The task of each place of the last axis.

    Returns
    -------
    ndarray of float
        nan where the original has 0 to keep, or nothing was measured.
    """
    with numpy.errstate(divide="ignore", invalid="ignore"):
        shares = values / numpy.where(originals > 0, originals, numpy.nan)
        return numpy.where(numpy.array(tasks, dtype=object) == REPLY_TASK, numpy.minimum(1 / shares, 1), shares)


def chance_levels(tasks: pandas.DataFrame) -> pandas.Series:
    """Return, by task that gives choices, the accuracy of one who reads no prompt: the mean of 1 / choices.

    Parameters
    ----------
    tasks : DataFrame
        As `read_tasks` returns it; other tasks have no such level.
    """
    rows = tasks[tasks["task"].isin(CHOICE_TASKS)]
    if rows.empty:
        return pandas.Series(dtype=float)
    shares = 1 / rows["choices"].map(split_choices).map(len)
    return shares.groupby(rows["task"], sort=False).mean()
