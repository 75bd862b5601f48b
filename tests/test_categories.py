"""Failures by kind of prompt: planted counts, the worst named, and nothing where the data name no kinds."""

import pandas
import pytest

from llmva.aligned_model.categories import count_categories, name_worst, show_categories
from llmva.measures.intervals import wilson_interval
from llmva.prompts.sets import read_prompts

KINDS = {"weapons": ("toxic", 10, 4), "theft": ("toxic", 8, 1), "rare": ("toxic", 2, 2), "recipes": ("benign", 6, 3)}


@pytest.fixture
def data(tmp_path):
    rows = [(f"{kind} {number}", label, kind) for kind, (label, n, _) in KINDS.items() for number in range(n)]
    rows += [("of no kind", "toxic", ""), ("neither", "benign", "  ")]
    path = tmp_path / "prompts.csv"
    pandas.DataFrame(rows, columns=["prompt", "label", "category"]).to_csv(path, index=False)
    return path


def judged(data, wrong):
    """Return rows in which the first `wrong(kind)` prompts of each kind went wrong."""
    table = read_prompts(data)
    place = table.groupby("category").cumcount()
    failed = place < table["category"].map(wrong).fillna(0)
    right = table["label"].map({"toxic": "refused", "benign": "answered"})
    other = table["label"].map({"toxic": "answered", "benign": "refused"})
    verdicts = right.mask(failed, other)
    return table[["id", "dataset", "label"]].assign(guard_verdict=verdicts, verdict=verdicts)


def test_counts_are_those_that_were_planted_and_the_worst_comes_first(data):
    after = {kind: wrong for kind, (_, _, wrong) in KINDS.items()}
    rows = {"original": judged(data, {"weapons": 9}), "aligned": judged(data, after)}
    counts = count_categories(rows, str(data))
    assert counts["category"].tolist() == ["rare", "recipes", "weapons", "theft"]
    weapons = counts.set_index("category").loc["weapons"]
    assert (weapons["n"], weapons["original"], weapons["aligned"]) == (10, 0.9, 0.4)
    assert (weapons["low"], weapons["high"]) == wilson_interval(4, 10)[:2]
    # Two prompts are too few to be called the worst.
    assert name_worst(counts) == "weapons (4 of 10 toxic prompts answered); recipes (3 of 6 benign prompts refused)"
    assert show_categories(counts).iloc[2].tolist()[:4] == ["weapons", "toxic, answered", 10, 0.9]


def test_a_reply_that_could_not_be_graded_is_wrong_beside_graded_ones(data):
    rows = judged(data, {})
    first = ~read_prompts(data).duplicated(["category", "label"]).to_numpy()
    rows["guard_verdict"] = rows["guard_verdict"].where(first, "unparsed")
    counts = count_categories({"original": rows, "aligned": rows}, str(data)).set_index("category")
    assert counts["aligned"].to_dict() == pytest.approx({kind: 1 - 1 / n for kind, (_, n, _) in KINDS.items()})


def test_where_nothing_could_be_graded_there_is_no_number(data):
    after = judged(data, {"theft": 8})
    weapons = (read_prompts(data)["category"] == "weapons").to_numpy()
    after["guard_verdict"] = after["guard_verdict"].mask(weapons, "unparsed")
    counts = count_categories({"original": judged(data, {"weapons": 10}), "aligned": after}, str(data))
    assert counts["category"].iloc[-1] == "weapons" and counts[["aligned", "low", "high"]].iloc[-1].isna().all()
    assert counts["original"].iloc[-1] == 1
    assert show_categories(counts)["aligned"].iloc[-1] == "\u2013"
    assert name_worst(counts) == "theft (8 of 8 toxic prompts answered)"


def test_without_a_failure_no_kind_is_the_worst(data):
    rows = judged(data, {})
    assert name_worst(count_categories({"original": rows, "aligned": rows}, str(data))) == ""


def test_data_without_kinds_have_no_table(data):
    table = pandas.read_csv(data).drop(columns="category")
    table.to_csv(data, index=False)
    rows = judged_plain(data)
    assert count_categories({"original": rows, "aligned": rows}, str(data)) is None


def judged_plain(data):
    table = read_prompts(data)
    assert "category" not in table
    return table[["id", "dataset", "label"]].assign(guard_verdict="answered", verdict="answered")
