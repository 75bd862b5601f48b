"""What is to be known of the verdicts: how many there are, what they rest on, and nan where there is none."""

import pandas

from llmva.aligned_model.drawing import WORDS
from llmva.core.vocabulary import ERROR_RATE
from llmva.judging.refusals import LATER
from llmva.judging.thinking import UNFINISHED
from llmva.measures.metrics import POOLED_METRICS
from llmva.models.templates import opens_thinking
from llmva.study.study import Study

# Stands where there is no number.
NOTHING = "\u2013"
ENDS = ("", "_low", "_high")


def blank_ungraded(results: pandas.DataFrame, rows: dict[str, pandas.DataFrame]) -> pandas.DataFrame:
    """Return results with nan in place of each rate and score that no graded reply stands behind.

    An ungraded reply counts as wrong beside graded ones, so that nobody gains by it; alone it says nothing.

    Parameters
    ----------
    results : DataFrame
        As `measures.intervals.with_intervals` gives them: method, dataset, metric, value, n.
    rows : dict of str to DataFrame
        The judged prompts that they were measured on, by method.
    """
    unknown = {(method, name + end) for method, table in rows.items() for name in _ungraded(table) for end in ENDS}
    blank = [pair in unknown for pair in zip(results["method"], results["metric"], strict=True)]
    return results.assign(value=results["value"].mask(blank))


def has_graded(rows: pandas.DataFrame, by: list[str]) -> pandas.Series:
    """Tell for each group whether one of its replies could be graded: bool, indexed by group."""
    return rows["guard_verdict"].ne("unparsed").groupby([rows[name] for name in by]).any()


def tell_judged(rows: dict[str, pandas.DataFrame], judge: str, thinking: str = "") -> list[str]:
    """Return what is to be known of the verdicts, the worst first: sentences.

    `thinking` is what `name_thinking` says of the model.
    """
    words, count = WORDS["judged"], len(rows["original"])
    raw = {model: table["raw"].astype(str) for model, table in rows.items()}
    counts = {
        "ungraded": {model: int(table["guard_verdict"].eq("unparsed").sum()) for model, table in rows.items()},
        "unfinished": {model: int(texts.eq(UNFINISHED).sum()) for model, texts in raw.items()},
        judge: {model: int(texts.str.startswith(LATER).sum()) for model, texts in raw.items()},
    }
    told = [name for name, by_model in counts.items() if name in words and (name == judge or any(by_model.values()))]
    said = [words[name].format(count=count, **counts[name]) for name in told]
    return [*said, words[thinking]] if thinking else said


def name_thinking(study: Study) -> str:
    """Return the name of what is to be said of a model that thinks; "" of one that does not."""
    if study.params.thinking:
        return "budget"
    return "thinking" if opens_thinking(study.chat_model.tokenizer) else ""


def _ungraded(rows: pandas.DataFrame) -> list[str]:
    graded = has_graded(rows, ["dataset", "label"])
    names = [f"{dataset}_{ERROR_RATE[label]}" for dataset, label in graded[~graded].index]
    by_label = graded.groupby("label").any()
    names += [ERROR_RATE[label] for label in by_label[~by_label].index]
    return names if by_label.any() else [*names, *POOLED_METRICS, "mcnemar_p"]
