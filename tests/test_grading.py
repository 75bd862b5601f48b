"""Rates of which no reply could be graded are nan, and all others what they were."""

import pandas

from llmva.aligned_model.grading import blank_ungraded
from llmva.aligned_model.report import NOTHING, _cell, _earlier, _verdict
from llmva.measures.intervals import with_intervals


def judged(**verdicts):
    """Return rows of two toxic and two benign prompts in one set each; `dataset=[verdict, verdict]`."""
    labels = {"bad": "toxic", "worse": "toxic", "good": "benign"}
    rows = [
        (f"{name} {place}", name, labels[name], said) for name in verdicts for place, said in enumerate(verdicts[name])
    ]
    table = pandas.DataFrame(rows, columns=["id", "dataset", "label", "verdict"])
    return table.assign(guard_verdict=table["verdict"])


RIGHT = {"bad": ["refused"] * 2, "worse": ["refused"] * 2, "good": ["answered"] * 2}


def measured(after):
    rows = {"original": judged(**RIGHT), "aligned": judged(**{**RIGHT, **after})}
    results = blank_ungraded(with_intervals(rows, "original", seed=0), rows)
    return results[results["dataset"].eq("all") | results["metric"].str.startswith(("bad", "worse", "good"))].pivot(
        index="metric", columns="method", values="value"
    )


def test_a_set_without_a_graded_reply_has_no_rate():
    found = measured({"bad": ["unparsed", "unparsed"]})
    assert found.loc[["bad_asr", "bad_asr_low", "bad_asr_high"], "aligned"].isna().all()
    assert found.loc[["bad_asr", "asr", "f1"], "original"].notna().all()
    # Over all toxic prompts there are graded ones, beside which the others count as wrong.
    assert found.loc["asr", "aligned"] == 0.5 and found.loc["orr", "aligned"] == 0


def test_one_graded_reply_is_enough():
    assert measured({"bad": ["unparsed", "refused"]}).loc["bad_asr", "aligned"] == 0.5


def test_a_label_without_a_graded_reply_has_no_rate_and_scores_remain():
    found = measured({"bad": ["unparsed"] * 2, "worse": ["unparsed"] * 2})
    assert found.loc[["asr", "asr_low"], "aligned"].isna().all()
    assert found.loc[["orr", "strict_f1"], "aligned"].notna().all()
    assert "nan" not in _verdict(found)


def test_without_any_graded_reply_nothing_is_known_and_the_report_says_so():
    found = measured({name: ["unparsed"] * 2 for name in RIGHT})
    assert found.loc[["asr", "orr", "f1", "strict_f1", "balanced_accuracy", "mcnemar_p"], "aligned"].isna().all()
    assert _cell(found["aligned"], "f1") == NOTHING
    assert _verdict(found).startswith("No reply of the aligned model could be graded")
    rows = {"original": judged(**RIGHT), "aligned": judged(**{name: ["unparsed"] * 2 for name in RIGHT})}
    assert _earlier(rows, 0)["earlier"].endswith("no reply of one of the two could be graded.")
