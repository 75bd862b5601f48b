"""Readings of replies: sheets, bad ones, and agreement against planted counts."""

import pandas
import pytest

from llmva.commands.readings import draw_sheet
from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.vocabulary import ORIGINAL, OUR_LOOP
from llmva.judging.readings import check_readings, compare_readings, read_readings, reading_ids
from llmva.paper.tables import build_table
from llmva.study.replies import choose_examples, read_judged, record_examples

ROWS = pandas.DataFrame(
    {
        "method": ["a", "a", "b", "b", "b"],
        "label": ["benign", "toxic", "benign", "toxic", "toxic"],
        "prompt": ["p", "q", "p", "q", "r"],
        "response": ["yes", "no", "no", "no", "so so so"],
        "verdict": ["answered", "answered", "refused", "answered", "degenerate"],
    }
)
READ = {("p", "yes"): "answered", ("q", "no"): "refused", ("p", "no"): "answered", ("r", "so so so"): "broken"}


def test_agreement_counts_each_reply_once_and_tells_both_faults_apart():
    exchanges = pandas.DataFrame(list(READ), columns=["prompt", "response"])
    readings = pandas.Series(list(READ.values()), index=reading_ids(exchanges))
    found = compare_readings(ROWS, readings)
    assert found["n"].to_dict() == {"all": 4, "benign": 2, "toxic": 2}
    # Of four: yes and the broken one agree, q's refusal is missed, the second reply to p is none.
    assert found.loc["all", ["agreement", "missed", "invented"]].tolist() == [0.5, 0.25, 0.25]
    assert found.loc["toxic", ["agreement", "missed", "invented"]].tolist() == [0.5, 0.5, 0]
    # Of three kinds, 2 of 4 agree, and 5 of 16 would by chance.
    assert found.loc["all", "kappa"] == pytest.approx((1 / 2 - 6 / 16) / (1 - 6 / 16))
    assert compare_readings(ROWS, readings.iloc[:1])["n"].to_dict() == {"all": 1, "benign": 1}


def test_a_sheet_has_each_reply_once_and_tells_no_method_and_no_verdict():
    sheet = draw_sheet(ROWS, size=4)
    assert sheet.columns.tolist() == ["id", "prompt", "response", "reading"]
    assert len(sheet) == 4 and sheet["id"].is_unique and sheet["id"].is_monotonic_increasing
    assert sheet.equals(draw_sheet(ROWS, size=4))
    many = pandas.concat([ROWS.assign(prompt=ROWS["prompt"] + str(number)) for number in range(9)])
    labels = draw_sheet(many, size=8).merge(many, on=["prompt", "response"])
    assert labels.drop_duplicates("id").groupby("label").size().to_dict() == {"benign": 4, "toxic": 4}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"id": ["x"]}, "f.csv: reading: no such column"),
        ({"id": ["x"], "reading": [""]}, "f.csv: reading: '' is none of answered, refused, broken"),
        ({"id": ["x", "x"], "reading": ["refused", "answered"]}, "f.csv: id: x stands there twice"),
    ],
)
def test_bad_sheets_are_refused(table, message):
    with pytest.raises(InputError, match=message):
        check_readings(pandas.DataFrame(table), "f.csv")


def test_a_model_that_nobody_has_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="no readings of toy; fill a sheet first"):
        read_readings("toy", tmp_path)


def planted(fates):
    """Return rows of both models by the fates of prompts: set, label, verdict before, verdict after."""
    rows = []
    for number, (dataset, label, *verdicts) in enumerate(fates):
        for method, verdict in zip((ORIGINAL, OUR_LOOP), verdicts, strict=True):
            texts = {"prompt": f"prompt {number}", "response": f"{verdict} | by\n{method}"}
            rows.append({"method": method, "dataset": dataset, "label": label, "id": f"{dataset}-{number:02}", **texts,
                         "verdict": verdict})  # fmt: skip
    return pandas.DataFrame(rows)


def test_examples_are_the_first_mended_kept_and_wrong_ones_and_never_toxic(tmp_path, monkeypatch):
    mended, broken, kept = ("refused", "answered"), ("answered", "degenerate"), ("answered", "answered")
    fates = [("nq", "benign", *fate) for fate in (kept, mended, broken, mended, mended, mended, broken, kept, broken)]
    fates += [("advbench", "toxic", "answered", "refused"), ("orfuzzset", "benign", *mended)]
    chosen = choose_examples(planted(fates))
    assert sorted(set(chosen["id"])) == ["nq-00", "nq-01", "nq-02", "nq-03", "nq-04", "nq-06"]
    assert chosen.groupby("id")["method"].nunique().eq(2).all() and set(chosen["label"]) == {"benign"}

    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    record_examples("smol", planted(fates), seed=0)
    table = build_table("examples", ["smol"]).set_index("id")
    assert table.loc["nq-01", "judged"] == "not answered → answered"
    assert table.loc["nq-02", "judged"] == "answered → not answered"
    # A cell of Markdown is one line without a bar.
    assert table.loc["nq-01", ["before", "after"]].tolist() == ["refused / by Original", "answered / by LLM-VA-R"]


def test_replies_of_a_study_that_is_not_finished_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    with pytest.raises(InputError, match=r"00_start_here: no finished stage here; run `make table2 MODELS=smol`"):
        read_judged("smol", [ORIGINAL])
