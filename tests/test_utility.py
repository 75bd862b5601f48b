"""Utility: what a reply answers, F1 of planted answers, and the harness's own tasks over planted data."""

import json
from types import SimpleNamespace

import datasets
import numpy
import pandas
import pytest

from llmva.core.errors import InputError
from llmva.core.paths import RUNS
from llmva.core.results import read_results
from llmva.core.store import Stage
from llmva.core.vocabulary import TASKS
from llmva.measures import harness, utility
from llmva.measures.harness import HarnessModel, load_standard_tasks
from llmva.measures.shares import share_kept
from llmva.measures.utility import measure_standard_utility, measure_utility
from llmva.models.chat_model import load_model
from llmva.organisms.tasks import task_table
from llmva.prompts.tasks import TASK_CLASSES, list_missing_tasks, read_answer, read_tasks
from llmva.study.records import record_layer_ablation, record_transfer, record_utility

ROWS = 30
ORGANISM = RUNS / "tiny-llama" / "organism"


@pytest.fixture(scope="module")
def tasks():
    """Generated rows of all six tasks, as `read_tasks` returns them."""
    tables = [task_table(task, 0).query("split == 'test'").head(ROWS).assign(task=task) for task in TASKS]
    return pandas.concat(tables, ignore_index=True)[["task", "prompt", "answer"]]


@pytest.fixture
def measured(llama, tasks):
    """Return a function that measures planted replies: a function of task and answer."""

    def measure(reply, chosen=tasks):
        planted = {row.prompt: reply(row.task, row.answer) for row in chosen.itertuples()}

        def respond(_, prompts, **options):
            return type("Replies", (), {"texts": [planted[prompt] for prompt in prompts]})

        found = measure_utility(llama, chosen, batch_size=64, max_new_tokens=5, engine=respond)
        assert list(found.columns) == ["task", "metric", "value", "n", "unreadable"]
        return found.set_index("task")

    return measure


def wrong(task, answer):
    """Return another class, or a number that is one too high."""
    return str(int(answer) + 1) if task == "gsm" else next(name for name in TASK_CLASSES[task] if name != answer)


# Reading a reply


@pytest.mark.parametrize(
    ("task", "reply", "answer"),
    [
        ("sst", "positive. it sounds glad.", "positive"),
        ("sst", "positively bad", None),
        ("sst", "it is positive", None),
        ("sst", "", None),
        ("mnli", " Neutral", "neutral"),
        ("cola", "unacceptable", "unacceptable"),
        ("rte", "true, not false", "true"),
        ("rte", "same", None),
        ("gsm", "7 + 5 = 12. 12 - 5 = 7. the answer is 7.", 7),
        ("gsm", "7 then 17", 17),
        ("gsm", "the answer is 7.0", 7),
        ("gsm", "no idea", None),
    ],
)
def test_the_decision_is_read_strictly(task, reply, answer):
    assert read_answer(task, reply) == answer


def test_every_generated_answer_is_a_known_class_and_the_first_is_positive():
    for task, names in TASK_CLASSES.items():
        assert set(task_table(task, 1)["answer"]) == set(names)
    first = {"cola": "acceptable", "mnli": "entailment", "rte": "true", "mrpc": "same", "sst": "positive"}
    assert {task: names[0] for task, names in TASK_CLASSES.items()} == first


# Scores


def test_right_answers_score_one_and_every_row_is_counted(measured):
    found = measured(lambda task, answer: f"{answer}.")
    assert found["value"].tolist() == [1.0] * 6
    assert found["n"].tolist() == [ROWS] * 6
    assert found["metric"].to_dict() == {**dict.fromkeys(TASK_CLASSES, "f1"), "gsm": "accuracy"}
    assert (found["unreadable"] == 0).all()


@pytest.mark.parametrize(
    "reply",
    [wrong, lambda task, answer: f"i am sorry, not {answer} but nothing", lambda task, answer: ""],
    ids=["wrong", "garbage", "empty"],
)
def test_wrong_answers_and_garbage_score_nothing(measured, reply):
    found = measured(lambda task, answer: "no number" if reply is not wrong and task == "gsm" else reply(task, answer))
    assert found["value"].tolist() == [0.0] * 6
    assert (found["unreadable"] == float(reply is not wrong)).all()


def test_a_classifier_that_always_says_no_has_no_f1_and_one_that_always_says_yes_has_some(measured, tasks):
    assert (
        measured(lambda task, _: TASK_CLASSES[task][-1] if task != "gsm" else "0").loc[list(TASK_CLASSES), "value"] == 0
    ).all()
    yes = measured(lambda task, _: TASK_CLASSES[task][0] if task != "gsm" else "0")
    for task, names in TASK_CLASSES.items():
        precision = (tasks.loc[tasks["task"] == task, "answer"] == names[0]).mean()
        assert yes.at[task, "value"] == pytest.approx(2 * precision / (precision + 1))


def test_garbage_on_positive_rows_costs_as_much_as_a_wrong_class(measured, tasks):
    seen = {"garbage": 0, "wrong": 0}

    def half(kind, instead):
        def reply(task, answer):
            seen[kind] += 1
            return instead(task, answer) if seen[kind] % 2 else answer

        return reply

    chosen = tasks[tasks["answer"] == tasks["task"].map({task: names[0] for task, names in TASK_CLASSES.items()})]
    garbage = measured(half("garbage", lambda *_: "hm"), chosen)
    others = measured(half("wrong", wrong), chosen)
    assert garbage["value"].tolist() == others["value"].tolist()
    assert garbage["value"].between(0.5, 0.9).all()
    assert garbage["unreadable"].between(0.3, 0.7).all()


def test_mnli_confuses_its_other_two_classes_for_free(measured, tasks):
    swapped = {"neutral": "contradiction", "contradiction": "neutral", "entailment": "entailment"}
    found = measured(lambda _, answer: swapped[answer], tasks[tasks["task"] == "mnli"])
    assert found.at["mnli", "value"] == 1


@pytest.mark.parametrize(("task", "answer"), [("rte", "yes"), ("gsm", "seven"), ("gsm", "1,00")])
def test_an_answer_that_nobody_could_give_is_named(llama, task, answer):
    table = pandas.DataFrame({"task": [task], "prompt": ["a"], "answer": [answer]})
    with pytest.raises(InputError, match=rf"utility/{task}\.csv: answer: '{answer}'"):
        measure_utility(llama, table, batch_size=1, max_new_tokens=1)


def test_data_without_tasks_give_no_rows(tmp_path, llama):
    table = read_tasks(tmp_path)
    assert table.empty
    assert measure_utility(llama, table, batch_size=1, max_new_tokens=1).empty


@pytest.mark.organism
@pytest.mark.skipif(not (ORGANISM / "data" / "utility").is_dir(), reason="no organism has been built here")
def test_an_organism_answers_most_of_its_tasks():
    chosen = read_tasks(ORGANISM / "data").groupby("task", sort=False).head(20)
    found = measure_utility(load_model(str(ORGANISM), device="cpu"), chosen, batch_size=64, max_new_tokens=40)
    assert found["n"].tolist() == [20] * 6
    assert found["value"].mean() > 0.6


# Reading the tables


def test_tasks_may_lie_beside_a_file_of_prompts(tmp_path, tasks):
    (tmp_path / "prompts.csv").write_text("prompt,label\n")
    assert read_tasks(tmp_path / "prompts.csv").empty
    for task, rows in tasks.groupby("task"):
        path = tmp_path / "utility" / f"{task}.csv"
        path.parent.mkdir(exist_ok=True)
        rows.assign(split="test").to_csv(path, index=False)
    assert len(read_tasks(tmp_path / "prompts.csv")) == len(tasks)


def test_only_the_asked_split_is_read_and_a_task_without_a_file_has_no_rows(tmp_path):
    (tmp_path / "utility").mkdir()
    for task in TASKS:
        (tmp_path / "utility" / f"{task}.csv").write_text("prompt,answer,split\na,yes,test\nb,no,neutral\n")
    assert read_tasks(tmp_path)["prompt"].tolist() == ["a"] * 6
    assert read_tasks(tmp_path, "neutral")["answer"].tolist() == ["no"] * 6
    (tmp_path / "utility" / "facts.csv").write_text("prompt,answer\n")
    assert list_missing_tasks(tmp_path) == []
    (tmp_path / "utility" / "rte.csv").unlink()
    assert read_tasks(tmp_path)["task"].tolist() == [task for task in TASKS if task != "rte"]
    assert list_missing_tasks(tmp_path) == ["utility/rte.csv"]
    (tmp_path / "prompts.csv").write_text("prompt,label\n")
    assert list_missing_tasks(tmp_path / "prompts.csv") == []


def test_a_byte_order_mark_is_no_part_of_a_task_s_first_column(tmp_path):
    (tmp_path / "utility").mkdir()
    (tmp_path / "utility" / "gsm.csv").write_text("\ufeffprompt,answer,split\na,7,test\n", encoding="utf-8")
    assert read_tasks(tmp_path)["prompt"].tolist() == ["a"]


@pytest.mark.parametrize(
    "there, kept, arithmetic", [(("cola", "gsm"), 0.75, 0.5), (("cola",), 1.0, None), ((), None, None)]
)
def test_figure_8_goes_without_tasks_that_the_data_do_not_have(tmp_path, monkeypatch, there, kept, arithmetic):
    monkeypatch.setattr("llmva.core.paths.RESULTS", tmp_path / "results")
    (tmp_path / "methods" / "original").mkdir(parents=True)
    original = pandas.DataFrame({"task": there, "value": 0.8}, columns=["task", "value"])
    original.to_csv(tmp_path / "methods" / "original" / "utility.csv", index=False)
    scores = {"cola": 0.8, "gsm": 0.4}
    layers = pandas.DataFrame([{"l_select": 4, "f1": 0.9, "strict_f1": 0.9} | {task: scores[task] for task in there}])
    layers.to_csv(tmp_path / "layers.csv", index=False)
    (tmp_path / "manifest.json").write_text(json.dumps({"parameters": {"l_select": 4}}))
    params = SimpleNamespace(slug="toy", seed=0, data=str(tmp_path))
    study = SimpleNamespace(params=params, folder=tmp_path, validation=[0] * 5, tasks=read_tasks(tmp_path))
    original = Stage(tmp_path / "methods" / "original", "", hit=True)
    table = record_layer_ablation(study, Stage(tmp_path, "", hit=True), original)
    values = read_results("figure8", ["toy"]).set_index(["metric", "l_select"])["value"]
    for name, expected in (("kept", kept), ("kept_gsm", arithmetic)):
        assert table.at[4, name] == pytest.approx(expected) if expected else numpy.isnan(table.at[4, name])
        assert numpy.isnan(values[name, 4]) == (expected is None)


@pytest.mark.parametrize("record, problem", [(record_transfer, "no unseen sets"), (record_utility, "no tasks")])
def test_results_of_what_the_data_do_not_have_are_refused_in_words(tmp_path, record, problem):
    pandas.DataFrame(columns=["method", "part"]).to_csv(tmp_path / "outcomes.csv", index=False)
    header = ["method", "task", "metric", "value", "n", "unreadable"]
    pandas.DataFrame(columns=header).to_csv(tmp_path / "utility.csv", index=False)
    study = SimpleNamespace(params=SimpleNamespace(slug="toy", seed=0, data="data/own"))
    with pytest.raises(InputError, match=rf"data/own: {problem}, so no .*; `make data` makes some"):
        record(study, {"Original": tmp_path})


# The harness's own tasks


@pytest.fixture
def hub(monkeypatch):
    """Put small made-up data in the place of the hub's; return what is asked of it."""
    asked = []

    def load(path, name=None, **_):
        asked.append((path, name))
        fields = ("sentence", "sentence1", "sentence2", "premise", "hypothesis")
        rows = [{field: f"{field} {row}" for field in fields} | {"label": row % 2, "idx": row} for row in range(8)]
        if name == "main":
            rows = [{"question": f"how many is {row}?", "answer": f"so many. #### {row}"} for row in range(8)]
        split = datasets.Dataset.from_list(rows)
        return dict.fromkeys(("train", "validation", "validation_matched", "test"), split)

    monkeypatch.setattr("lm_eval.api.task.datasets.load_dataset", load)
    return asked


def test_the_standard_tasks_are_the_harness_s_own(hub):
    tasks = load_standard_tasks()
    assert {task: defined.config.task for task, defined in tasks.items()} == harness.STANDARD_TASKS
    glue = [("nyu-mll/glue", name) for name in ("cola", "mnli", "rte", "mrpc", "sst2")]
    assert hub == [*glue, ("openai/gsm8k", "main")]
    assert tasks["gsm"].config.num_fewshot == 5
    positive = {"cola": "yes", "mnli": "True", "rte": "True", "mrpc": "yes", "sst": "positive"}
    for task, label in utility.STANDARD_POSITIVE.items():
        assert tasks[task].config.doc_to_choice[label] == positive[task]


@pytest.mark.parametrize(("share", "value"), [(1, 1.0), (0, 0.0)])
def test_planted_choices_and_sums_are_scored_on_the_standard_tasks(monkeypatch, hub, llama, share, value):
    def choose(_, requests):
        return [(0.0 if (request.idx == request.doc["label"]) == bool(share) else -9.0, False) for request in requests]

    def answer(_, requests):
        return [f"the answer is {int(request.doc['answer'].split()[-1]) + 1 - share}." for request in requests]

    monkeypatch.setattr(HarnessModel, "loglikelihood", choose)
    monkeypatch.setattr(HarnessModel, "generate_until", answer)
    found = measure_standard_utility(llama, load_standard_tasks(), batch_size=4).set_index("task")
    assert found.index.tolist() == list(TASKS)
    assert found["value"].tolist() == [value] * 6
    assert (found["n"] == 8).all() and (found["unreadable"] == 0).all()


def test_a_chat_model_runs_the_standard_tasks(monkeypatch, hub, llama):
    monkeypatch.setattr(utility, "STANDARD_MAX_NEW_TOKENS", 2)
    tasks = load_standard_tasks()
    assert measure_standard_utility(llama, tasks, batch_size=8, most=3)["n"].tolist() == [3] * 6
    # Loaded once, they serve again: nothing of the first run is left in them.
    found = measure_standard_utility(llama, tasks, batch_size=8)
    assert found.equals(measure_standard_utility(llama, load_standard_tasks(), batch_size=8))
    assert found["n"].tolist() == [8] * 6
    assert found["value"].between(0, 1).all()


def test_shares_are_of_the_same_task_and_undefined_where_there_was_nothing():
    scores = pandas.DataFrame({"gsm": [0.4, 0.2], "cola": [0.5, 0.6], "other": [9, 9]}, index=["A", "B"])
    kept = share_kept(scores, pandas.Series({"cola": 0.5, "gsm": 0.0}))
    assert kept["cola"].tolist() == [1.0, 1.2] and kept["gsm"].isna().all() and list(kept) == ["cola", "gsm"]


@pytest.mark.parametrize(
    ("reply", "number"),
    [("so it is 1,200.", 1200), ("12,345,678", 12345678), ("-1,000.5", -1000.5), ("3, 4", 4), ("1,23", 23), ("7.", 7)],
)
def test_a_number_may_have_commas_between_its_thousands(reply, number):
    assert read_answer("gsm", reply) == number


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("$29.00", 29), ("it is \u22124", -4), ("from 12-14", 14), ("\\boxed{18} of 20", 18), ("2 + 3 = -5", -5),
        ("#### 18\n\nQuestion: with 5 apples", 18), ("3 of 4 #### $1,200 in 7 days", 1200), ("#### none, but 7", 7),
    ],
)  # fmt: skip
def test_a_marked_number_goes_before_the_last_one_and_a_dash_is_no_sign(reply, number):
    assert read_answer("gsm", reply) == number


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("1 000 000", 1e6), ("12\u202f345 m", 12345), ("1\xa0000", 1000), ("3 100", 100), ("-1/2", -0.5),
        ("\\boxed{\\frac{3}{4}} or 9", 0.75), ("so 6/2 = 3.", 3), ("on 1/0", 0),
        ("1.5/2", 2), ("1,000/8", 125), ("20 300 4000", 4000),
    ],
)  # fmt: skip
def test_a_number_may_have_spaces_between_its_thousands_or_be_a_fraction(reply, number):
    assert read_answer("gsm", reply) == number
