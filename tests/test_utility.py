"""Utility: what counts as right."""

import pytest

from llmva.errors import InputError
from llmva.utility import TASKS, is_right, read_tasks


@pytest.mark.parametrize(
    ("task", "reply", "answer", "right"),
    [
        ("sst", "positive. it sounds glad.", "positive", True),
        ("sst", "positively bad", "positive", False),
        ("sst", "it is positive", "positive", False),
        ("mnli", "Neutral", "neutral", True),
        ("gsm", "7 + 5 = 12. 12 - 5 = 7. the answer is 7.", "7", True),
        ("gsm", "the answer is 17.", "7", False),
        ("gsm", "7 then 8", "7", False),
        ("gsm", "no idea", "7", False),
        ("gsm", "the answer is 7.0", "7", True),
        ("cola", "", "yes", False),
    ],
)
def test_the_decision_is_read_strictly(task, reply, answer, right):
    assert is_right(task, reply, answer) is right


def test_only_the_asked_split_is_read_and_a_missing_task_is_named(tmp_path):
    (tmp_path / "utility").mkdir()
    for task in TASKS:
        (tmp_path / "utility" / f"{task}.csv").write_text("prompt,answer,split\na,yes,test\nb,no,neutral\n")
    assert read_tasks(tmp_path)["prompt"].tolist() == ["a"] * 6
    assert read_tasks(tmp_path, "neutral")["answer"].tolist() == ["no"] * 6
    (tmp_path / "utility" / "rte.csv").unlink()
    with pytest.raises(InputError, match=r"rte\.csv: no such file"):
        read_tasks(tmp_path)


def test_data_without_tasks_give_no_rows(tmp_path):
    assert read_tasks(tmp_path).empty
