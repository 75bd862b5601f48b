"""Simple tasks in plain English: what is drawn is balanced, held apart by split, and read back as it was written."""

import pandas
import pytest

from llmva.core.errors import InputError
from llmva.core.vocabulary import ALL_TASKS, CHOICE_TASKS, LIKELIHOOD_TASKS, REPLY_TASK, TASKS
from llmva.organisms.simple_tasks import WORDS, simple_task_table
from llmva.prompts.tasks import list_missing_tasks, read_tasks, require_known_answers, split_choices

PLAIN = "prompt,answer,choices,split\nGood?,yes,yes | no,test\nBad?,no,yes | no,neutral\n"


@pytest.fixture
def write(tmp_path):
    """Return a function that writes `utility/<task>.csv` of a data folder, and returns the folder."""
    (tmp_path / "utility").mkdir()

    def write_task(task, content):
        (tmp_path / "utility" / f"{task}.csv").write_text(content)
        return tmp_path

    return write_task


@pytest.mark.parametrize("task", CHOICE_TASKS)
def test_answers_and_their_places_are_balanced(task):
    table = simple_task_table(task, 0)
    assert table["prompt"].is_unique and not table.duplicated().any()
    choices, number = table["choices"].map(split_choices), 4 if task == "closed_facts" else 2
    assert choices.map(len).eq(number).all()
    for split, (smallest, size) in {"test": (120, 150), "neutral": (30, 40)}.items():
        rows = table["split"] == split
        assert rows.sum() == size if task != "closed_facts" else rows.sum() >= smallest
        found = [given.index(answer) for given, answer in zip(choices[rows], table["answer"][rows], strict=True)]
        counts = [found.count(place) for place in range(number)]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("task", CHOICE_TASKS)
def test_rows_depend_on_the_seed_alone(task):
    first, again, other = (simple_task_table(task, seed) for seed in (1, 1, 2))
    pandas.testing.assert_frame_equal(first, again)
    assert list(first["choices"] + first["prompt"]) != list(other["choices"] + other["prompt"])


def test_no_opinion_has_both_splits():
    table = simple_task_table("sentiment", 0)
    opinions = [text for kind in WORDS["reviews"].values() for side in ("positive", "negative") for text in kind[side]]
    assert len(opinions) == len(set(opinions)) == 144
    splits = {text: set(table["split"][table["prompt"].str.contains(text, regex=False)]) for text in opinions}
    assert all(len(found) == 1 for found in splits.values())


def test_no_fact_has_both_splits_for_any_seed():
    splits = [simple_task_table("closed_facts", seed).set_index("prompt")["split"].sort_index() for seed in (0, 1)]
    pandas.testing.assert_series_equal(*splits)


def test_everyday_prompts_are_halved():
    table = simple_task_table(REPLY_TASK, 0)
    assert list(table) == ["prompt", "split"] and table["prompt"].is_unique
    assert table["split"].value_counts().to_dict() == {"test": 30, "neutral": 30}


def test_what_is_drawn_is_read_back(write):
    for task in LIKELIHOOD_TASKS:
        folder = write(task, simple_task_table(task, 0).to_csv(index=False))
    found = read_tasks(folder)
    assert list(found) == ["task", "prompt", "answer", "choices"] and found["task"].unique().tolist() == [
        *LIKELIHOOD_TASKS
    ]
    require_known_answers(found)
    assert (found.loc[found["task"] == REPLY_TASK, ["answer", "choices"]] == "").all(axis=None)
    assert len(read_tasks(folder, "neutral")) == 40 + 40 + 30 + 30
    assert read_tasks(folder, known=TASKS).empty


def test_choices_are_a_column_only_where_a_task_gives_some(write):
    folder = write("rte", "prompt,answer,split\na,true,test\n")
    # The keys of finished stages hang on it.
    assert read_tasks(folder).to_numpy().tolist() == [["rte", "a", "true"]]
    write("sentiment", PLAIN)
    assert read_tasks(folder).to_numpy().tolist() == [
        ["rte", "a", "true", ""],
        ["sentiment", "Good?", "yes", "yes | no"],
    ]


def test_data_lack_the_tasks_of_their_own_kind(write):
    folder = write("sentiment", PLAIN)
    assert list_missing_tasks(folder) == [f"utility/{task}.csv" for task in LIKELIHOOD_TASKS if task != "sentiment"]
    write("rte", "prompt,answer,split\na,true,test\n")
    assert list_missing_tasks(folder) == [f"utility/{task}.csv" for task in TASKS if task != "rte"]


@pytest.mark.parametrize(
    ("choices", "answer", "line"),
    [
        ("yes", "yes", "choices: 'yes' is nothing to choose from; join two or more different ones by ' | '"),
        (
            "yes | yes",
            "yes",
            "choices: 'yes | yes' is nothing to choose from; join two or more different ones by ' | '",
        ),
        ("yes | ", "yes", "choices: 'yes | ' is nothing to choose from; join two or more different ones by ' | '"),
        ("yes | no", "maybe", "answer: 'maybe' is none of the choices; write one of yes | no"),
        ("yes|no", "Yes", "answer: 'Yes' is none of the choices; write one of yes | no"),
    ],
)
def test_malformed_choices_get_one_line(write, choices, answer, line):
    folder = write("entailment", f"prompt,answer,choices,split\nSo?,{answer},{choices},test\n")
    with pytest.raises(InputError) as caught:
        require_known_answers(read_tasks(folder))
    assert str(caught.value) == f"utility/entailment.csv: {line}"


def test_a_task_without_choices_and_an_unknown_task_are_refused(write):
    folder = write("sentiment", "prompt,answer,split\nGood?,yes,test\n")
    with pytest.raises(InputError, match="sentiment.csv: no column 'choices'; add it"):
        read_tasks(folder)
    write("sentiment", PLAIN)
    write("moods", PLAIN)
    with pytest.raises(InputError, match=f"moods.csv: no known set; rename it to one of {', '.join(ALL_TASKS)}"):
        read_tasks(folder)
