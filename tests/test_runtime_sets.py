"""MMLU, MT-Bench and AlpacaEval: every schema, from made-up files; what a study reads of them; and the real files."""

import json

import pandas
import pytest
from test_data_sets import build_real, hub, raw, run_command, write_csv, write_jsonl  # noqa: F401

from llmva.core.errors import InputError
from llmva.prompts.capability import MAX_OPEN_PROMPTS, read_conversations, read_mmlu, read_open_prompts
from llmva.prompts.public import build
from llmva.prompts.public.build import build_folder
from llmva.prompts.public.catalogue import KNOWN_SETS, PUBLIC_SETS
from llmva.prompts.tasks import read_answer, read_tasks

CHOICES = ["a knot", "a hose", "None", "NA"]
QUESTION = {"question": "What binds?", "subject": "rope_theory", "choices": CHOICES, "answer": 2}
PROMPT = (
    "This is a multiple-choice question about rope theory.\nWhat binds?\nA. a knot\nB. a hose\nC. None\nD. NA\n"
    "Answer with the letter A, B, C or D alone."
)
FILE = "test-00000-of-00001.parquet"
TURNS = ["Write on ropes,\nat length.", "Now on {hoses}."]


def place(tmp_path, name, file, write, *rows):
    """Write a made-up file of a set, and return the folder of all sets."""
    path = tmp_path / "raw" / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, list(rows))
    return tmp_path / "raw"


def write_parquet(path, rows):
    pandas.DataFrame(rows).to_parquet(path)


def write_json(path, rows):
    path.write_text(json.dumps(rows), encoding="utf-8")


def write_lines(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def build_one(tmp_path, name):
    """Return the rows that are built of a set from the files below `raw`."""
    build_folder(tmp_path / "data", folder=tmp_path / "raw", only=[name])
    return pandas.read_csv(tmp_path / "data" / "runtime" / f"{name}.csv", dtype=str, keep_default_na=False)


# MMLU


@pytest.mark.parametrize("answer", [2, "2", "C", " c "])
@pytest.mark.parametrize("write, file", [(write_parquet, f"all/{FILE}"), (write_jsonl, "test.jsonl")])
def test_the_hubs_rows_have_choices_and_a_number_or_a_letter(tmp_path, write, file, answer):
    place(tmp_path, "mmlu", file, write, {**QUESTION, "answer": answer})
    assert build_one(tmp_path, "mmlu").to_numpy().tolist() == [["rope_theory", PROMPT, "C"]]


def test_each_subjects_own_file_has_no_header_and_all_are_read(tmp_path):
    place(tmp_path, "mmlu", "test/rope_theory_test.csv", write_lines, "What binds?,a knot,a hose,None,NA,C")
    quoted = '"He said ""knot"",\nand left.","0, 1",2,3,4,A'
    folder = place(tmp_path, "mmlu", "test/global_ropes_test.csv", write_lines, quoted)
    manifest = build_folder(tmp_path / "out", folder=folder, only=["mmlu"])
    assert manifest["mmlu"]["rows"] == 2 and manifest["mmlu"]["origin"] == [f"{folder}/mmlu/test/*_test.csv"]
    table = build_one(tmp_path, "mmlu").set_index("subject")
    assert table.loc["rope_theory", "prompt"] == PROMPT and table.loc["rope_theory", "answer"] == "C"
    assert 'He said "knot",\nand left.\nA. 0, 1\nB. 2' in table.loc["global_ropes", "prompt"]


def test_a_large_set_is_drawn_from_and_the_seed_says_how(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "TEST_ROWS", 3)
    rows = [{**QUESTION, "question": f"What binds {number}?"} for number in range(9)]
    folder = place(tmp_path, "mmlu", "test.jsonl", write_jsonl, *rows, rows[0])
    drawn = {}
    for seed in (0, 1, 0):
        out = tmp_path / f"data{len(list(tmp_path.iterdir()))}"
        build_folder(out, folder=folder, only=["mmlu"], seed=seed)
        drawn.setdefault(seed, []).append((out / "runtime" / "mmlu.csv").read_text())
    assert drawn[0][0] == drawn[0][1] != drawn[1][0] and drawn[0][0].count("What binds") == 3


@pytest.mark.parametrize(
    ("file", "write", "rows", "expected"),
    [
        ("test.jsonl", write_jsonl, [{"question": "What?", "answer": 1}], "mmlu: no 'A' in its rows"),
        ("test.jsonl", write_jsonl, [{**QUESTION, "choices": ["a"]}], "mmlu: a question has 1 choices, not 4"),
        ("test.jsonl", write_jsonl, [{**QUESTION, "answer": -1}], "mmlu: none of its 1 rows has a label that is known"),
        ("test/ropes_test.csv", write_lines, ["What binds?,a,b,c"], "cannot be read .row 1: fewer than 6"),
        ("test/ropes_test.csv", write_lines, ["What, binds?,a,b,c,d,A"], "ropes_test.csv: cannot be read"),
    ],
)  # fmt: skip
def test_a_damaged_mmlu_is_one_line(tmp_path, file, write, rows, expected):
    place(tmp_path, "mmlu", file, write, *rows)
    with pytest.raises(InputError, match=expected) as caught:
        build_one(tmp_path, "mmlu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "letter"),
    [("B", "B"), ("b.", "B"), ("(C) because", "C"), ("**D**", "D"), ("Answer: A", "A"), ("The answer is (C).", "C"),
     ("The correct answer is B", "B"), ("B\nbecause", "B"), ("A) a knot", "A"), ("A: a knot", "A"),
     ("A rope binds.", None), ("", None), ("Because B", None), ("E", None), ("AB", None), ("A, B and C", None),
     ("answer", None)],
)  # fmt: skip
def test_only_a_letter_that_opens_a_reply_is_its_answer(reply, letter):
    assert read_answer("mmlu", reply) == letter


# MT-Bench


@pytest.mark.parametrize(
    ("file", "write", "row"),
    [
        ("question.jsonl", write_jsonl, {"question_id": 81, "category": "writing", "turns": TURNS}),
        ("question.jsonl", write_jsonl,
         {"question_id": 81, "category": "writing", "turns": TURNS, "reference": ["r", ""]}),
        ("train-00000-of-00001.parquet", write_parquet,
         {"prompt": TURNS, "reference": ["r", ""], "category": "writing", "prompt_id": 81}),
        ("train-00000-of-00001.parquet", write_parquet,
         {"prompt": TURNS, "reference": [], "category": "writing", "prompt_id": 81}),
    ],
)  # fmt: skip
def test_mt_bench_has_two_turns_and_sometimes_a_reference(tmp_path, file, write, row):
    place(tmp_path, "mt_bench", file, write, row)
    reference = list(row.get("reference") or ["", ""])
    expected = [["81", str(turn + 1), "writing", TURNS[turn], reference[turn]] for turn in (0, 1)]
    assert build_one(tmp_path, "mt_bench").to_numpy().tolist() == expected
    table = read_conversations(tmp_path / "data")
    assert table["turn"].tolist() == [1, 2] and table["prompt"].tolist() == TURNS


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question_id": 81, "category": "c", "turns": ["one"]}, "mt_bench: question 81 has no list of 2 turns"),
        ({"question_id": 81, "category": "c", "turns": "on"}, "mt_bench: question 81 has no list of 2 turns"),
        ({"prompt": TURNS, "category": "c"}, "mt_bench: no 'prompt_id' in its rows"),
    ],
)
def test_a_damaged_mt_bench_is_one_line(tmp_path, row, expected):
    place(tmp_path, "mt_bench", "question.jsonl", write_jsonl, row)
    with pytest.raises(InputError, match=expected):
        build_one(tmp_path, "mt_bench")


# AlpacaEval


@pytest.mark.parametrize("extra", [{}, {"datasplit": "eval"}])
def test_alpaca_eval_is_a_list_of_instructions(tmp_path, extra):
    row = {"instruction": " Tie a knot.\n", "output": "Sure.", "generator": "davinci", "dataset": "koala", **extra}
    rows = [row, {**row, "output": "No."}, {**row, "instruction": " "}]
    place(tmp_path, "alpaca_eval", "alpaca_eval.json", write_json, *rows)
    assert build_one(tmp_path, "alpaca_eval").to_numpy().tolist() == [["koala", "Tie a knot."]]


def test_alpaca_evals_file_is_read_from_the_hub_since_its_script_is_not_run(hub, monkeypatch, tmp_path):  # noqa: F811
    import huggingface_hub

    def download(name, file, *, repo_type, revision):
        assert (name, file, repo_type, revision) == ("tatsu-lab/alpaca_eval", "alpaca_eval.json", "dataset", "c0ffee")
        write_json(tmp_path / file, [{"instruction": "Tie a knot.", "output": "", "generator": "", "dataset": "koala"}])
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    manifest = build_folder(tmp_path / "data", only=["alpaca_eval"])
    assert hub == [] and manifest["alpaca_eval"]["origin"] == ["tatsu-lab/alpaca_eval/alpaca_eval.json@c0ffee"]
    assert manifest["alpaca_eval"]["licence"].startswith("CC BY-NC")


# Only when named


def test_by_default_nothing_of_them_is_built(raw, tmp_path):  # noqa: F811
    manifest = build_folder(tmp_path / "data", folder=raw)
    assert set(manifest) == set(PUBLIC_SETS) and not (tmp_path / "data" / "runtime").exists()
    assert set(KNOWN_SETS) - set(PUBLIC_SETS) == {"mmlu", "mt_bench", "alpaca_eval"}


def test_the_help_says_that_they_must_be_named(monkeypatch, capsys):
    status, printed = run_command(monkeypatch, capsys, "--help")
    assert status == 0 and "mmlu/all/test-00000-of-00001.parquet (only when it is named)" in printed.out
    for name in ("mmlu", "mt_bench", "alpaca_eval"):
        assert f"  {name} " in printed.out and not set("*?[") & set(KNOWN_SETS[name].files[0])


# What a study reads


def test_a_study_reads_questions_and_prompts_and_the_other_kind_of_study_none(tmp_path):
    place(tmp_path, "mmlu", "test.jsonl", write_jsonl, QUESTION)
    row = {"category": "c", "turns": TURNS}
    count = MAX_OPEN_PROMPTS + 5
    rows = [{**row, "question_id": number, "turns": [f"first {number}", "then"]} for number in range(count)]
    place(tmp_path, "mt_bench", "question.jsonl", write_jsonl, *rows)
    folder = place(tmp_path, "alpaca_eval", "alpaca_eval.json", write_json, {"instruction": "Tie."})
    build_folder(tmp_path / "data", folder=folder, only=["mmlu", "mt_bench", "alpaca_eval"])
    assert read_mmlu(tmp_path / "data").to_numpy().tolist() == [["mmlu", PROMPT, "C"]]
    found = read_open_prompts(tmp_path / "data")
    assert len(found) == len(set(found)) == MAX_OPEN_PROMPTS + 1 and "Tie." in found and "then" not in found
    assert found == read_open_prompts(tmp_path / "data") and not len(read_tasks(tmp_path / "data"))


def test_a_folder_without_them_has_none(tmp_path):
    assert list(read_mmlu(tmp_path)) == ["task", "prompt", "answer"] and not len(read_mmlu(tmp_path))
    assert read_open_prompts(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "row", "read", "expected"),
    [
        ("mmlu", {"prompt": "p", "answer": "E"}, read_mmlu, "mmlu.csv: answer: 'E' in data row 1; write a letter"),
        ("mmlu", {"prompt": "p"}, read_mmlu, "mmlu.csv: no column 'answer'"),
        ("mt_bench", {"conversation": "1", "turn": "3", "category": "", "prompt": "", "answer": ""}, read_conversations,
         "runtime/mt_bench.csv: turn: is '3'; write 1 or 2"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_built_file_is_one_line(tmp_path, name, row, read, expected):
    (tmp_path / "runtime").mkdir()
    write_csv(tmp_path / "runtime" / f"{name}.csv", [row])
    with pytest.raises(InputError, match=expected) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


# The real files

COUNTS = {"mmlu": 400, "mt_bench": 160, "alpaca_eval": 805}


@pytest.mark.parametrize("name", COUNTS)
def test_real_files_have_the_rows_that_they_should(name, tmp_path):
    assert build_real(name, tmp_path / "data") == COUNTS[name]
    if name == "mt_bench":
        table = read_conversations(tmp_path / "data")
        assert table["category"].nunique() == 8 and table["conversation"].nunique() == 80
        assert (table.groupby("conversation")["answer"].agg("".join) != "").sum() == 39
    if name == "mmlu":
        assert set(read_mmlu(tmp_path / "data")["answer"]) == set("ABCD")
