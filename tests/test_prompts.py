"""Prompts: files people bring, splits that never leak, pools with errors first, samples drawn anew."""

import gzip
import json

import numpy
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.params import load_params
from llmva.core.vocabulary import SAFETY_SETS, SPLITS, TASKS, TRANSFER_SETS
from llmva.prompts.pools import (
    POOL_COLUMNS,
    assign_splits,
    describe_pool,
    draw_candidates,
    draw_sample,
    errors_first_pool,
    read_transfer_sets,
)
from llmva.prompts.sets import list_missing_sets, prompt_id, read_candidates, read_prompts, require_two_classes
from llmva.study.stages import collect_prompts
from llmva.study.study import Study

GOOD = "prompt,label\nhow do i bake a cake,benign\nhow do i hurt a friend,toxic\n"


def numbered(rows_per_group: dict[str, int], dataset: str = "nq", label: str = "benign") -> pandas.DataFrame:
    """Return made-up prompts: `rows_per_group[group]` wordings of each base prompt."""
    rows = [(group, f"{group}, wording {number}") for group, count in rows_per_group.items() for number in range(count)]
    table = pandas.DataFrame(rows, columns=["group", "prompt"]).assign(dataset=dataset, label=label)
    return table.assign(id=[prompt_id(dataset, prompt) for prompt in table["prompt"]])


def candidates(per_set: int = 100) -> pandas.DataFrame:
    """Return a benign and a toxic set, split."""
    groups = {f"base {number}": 1 for number in range(per_set)}
    table = pandas.concat([numbered(groups, "nq", "benign"), numbered(groups, "seval_risk", "toxic")])
    table = table.assign(group=table["dataset"] + table["group"]).reset_index(drop=True)
    return table.assign(split=assign_splits(table, 0))


def write(folder, content: str | bytes, name: str = "prompts.csv"):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def mistake_in(path, *, two_classes: bool = False) -> str:
    with pytest.raises(InputError) as caught:
        table = read_prompts(path)
        if two_classes:
            require_two_classes(table, str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message


# Files that people bring


@pytest.mark.parametrize(
    ("content", "problem", "fix"),
    [
        ("question,label\nhow,benign\n", "no column 'prompt'", "add it (columns found: question, label)"),
        ("prompt,kind\nhow,benign\n", "no column 'label'", "add it (columns found: prompt, kind)"),
        ("prompt, label\nhow,benign\n", "no column 'label', but ' label'", "with no blank around it"),
        (
            "Prompt,label\nhow,benign\n",
            "no column 'prompt', but 'Prompt'",
            "write it in small letters, with no blank around it",
        ),
        (
            "prompt;label\nhow, then;benign\n",
            "its columns stand apart by semicolons",
            "fix that line",
        ),
        (
            '\n"prompt"\t"label"\nhow\tbenign\n',
            "its columns stand apart by tabs",
            "fix that line",
        ),
        ("prompt,label\nhow,benign\nwhy,harmful\n", "'harmful' in data row 2", "write benign or toxic"),
        ("prompt,label\nhow,benign\nwhy,\n", "'' in data row 2", "write benign or toxic"),
        ("prompt,label\nhow,benign\n  ,toxic\n", "empty in data row 2", "fill or remove that row"),
        ("", "is empty", "columns prompt and label"),
        (" \n\n", "is empty", "columns prompt and label"),
        ("\ufeff\n", "is empty", "columns prompt and label"),
        ("prompt,label\ncaf\xe9,benign\n".encode("latin-1"), "not UTF-8 at byte 16", "save it again as UTF-8"),
        (GOOD.encode("utf-16"), "not UTF-8 at byte 0", "save it again as UTF-8"),
        ('prompt,label\n"how,benign\n', "cannot be parsed", "fix that line"),
        ("prompt,label,label\nhow,benign,toxic\n", "two columns are named 'label'", "fix that line"),
        ("prompt,label\nwhy,toxic\nhow, then,benign\n", "line 3", "fix that line"),
        ("prompt,label\nhow, then,benign\nwhy, then,toxic\n", "cannot be parsed", "fix that line"),
        (
            'prompt,label\n"say \\"hi\\" to him",benign\n',
            "line 2: ',' expected after '\"': in a quoted",
            "fix that line",
        ),
        ('prompt,label\nhow,toxic\n"7" pipe",benign\n', "line 3: ',' expected after", "fix that line"),
        ('prompt,label\n"how do i,benign\nwhy,toxic\nsay "no" now,toxic\n', "line 4: ',' expected", "fix that line"),
        ("prompt,label\nhow,toxic\nwhy,benign\nhow ,benign\n", "label: data rows 1 and 3 have the same", "remove one"),
    ],
)
def test_a_csv_with_a_mistake_gets_one_line_with_the_fix(tmp_path, content, problem, fix):
    message = mistake_in(write(tmp_path, content))
    assert problem in message
    assert message.endswith(fix)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"prompt": "how", "label": "benign"}\n{"prompt": "why", \n', "line 2"),
        ('{"prompt": "how", "label": "benign"}\n["why", "toxic"]\n', "line 2: not a JSON object"),
        ('{"label": "benign"}\n', "no column 'prompt'"),
        ('{"prompt": "how", "label": "benign"}\n{"prompt": "why"}\n', "in data row 2; write benign or toxic"),
        ('{"prompt": "how", "label": "benign"}\n{"prompt": 3, "label": "toxic"}\n', "of type int in data row 2"),
        ('{"prompt": null, "label": "benign"}\n', "prompt: empty in data row 1"),
        ('{"prompt": "cut \\ud83d", "label": "benign"}\n', "half a character in data row 1"),
        ('{"prompt": "how", "prompt": "why", "label": "benign"}\n', "two keys are named 'prompt'"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_jsonl_with_a_mistake_gets_one_line_that_finds_it(tmp_path, content, problem):
    assert problem in mistake_in(write(tmp_path, content, "prompts.jsonl"))


def test_a_missing_file_is_named(tmp_path):
    assert "no such file" in mistake_in(tmp_path / "absent.csv")
    with pytest.raises(InputError, match=r"safety: no benign prompts; add some of seval_attack\.csv, seval_risk"):
        read_candidates(tmp_path)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "0 prompts; at least 10"),
        ([("a", "benign"), ("b", "benign"), ("c", "toxic")], "3 prompts; at least 10"),
        ([(f"prompt {number}", "benign") for number in range(20)], "0 groups of toxic prompts; add at least 3"),
        ([(f"prompt {number}", "toxic") for number in range(20)], "0 groups of benign prompts; add at least 3"),
        ([(f"prompt {number}", "toxic" if number < 2 else "benign") for number in range(20)], "2 groups of toxic"),
    ],
)
def test_too_few_rows_or_classes_to_split_are_refused(tmp_path, rows, problem):
    content = pandas.DataFrame(rows, columns=["prompt", "label"]).to_csv(index=False)
    assert problem in mistake_in(write(tmp_path, content), two_classes=True)


def test_enough_rows_of_both_classes_pass(tmp_path):
    rows = [(f"prompt {number}", ("benign", "toxic")[number % 2]) for number in range(10)]
    path = write(tmp_path, pandas.DataFrame(rows, columns=["prompt", "label"]).to_csv(index=False))
    require_two_classes(read_prompts(path), str(path))


def test_csv_and_jsonl_read_the_same(tmp_path):
    rows = [
        {"prompt": "how do i bake a cake, please?", "label": "Benign "},
        {"prompt": 'say "none"\nand stop', "label": "toxic"},
        {"prompt": "NA", "label": "benign"},
    ]
    from_csv = read_prompts(write(tmp_path, pandas.DataFrame(rows).to_csv(index=False)))
    from_jsonl = read_prompts(write(tmp_path, "\n".join(map(json.dumps, rows)), "prompts.jsonl"))
    pandas.testing.assert_frame_equal(from_csv, from_jsonl)
    assert from_csv["prompt"].tolist() == [row["prompt"] for row in rows]
    assert from_csv["label"].tolist() == ["benign", "toxic", "benign"]
    assert from_csv["dataset"].tolist() == from_csv["label"].tolist()
    assert from_csv["group"].tolist() == from_csv["prompt"].tolist()


@pytest.mark.parametrize("name", ["prompts.csv", "prompts.jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path, name):
    content = GOOD if name.endswith("csv") else '{"prompt": "how do i bake a cake", "label": "benign"}'
    assert read_prompts(write(tmp_path, "\ufeff" + content, name))["prompt"].iloc[0] == "how do i bake a cake"


@pytest.mark.parametrize("name", ["p.JSONL", "p.json", "array.json", "p.parquet", "p.csv.gz", "p.tsv", "p.CSV", "p"])
def test_files_are_read_by_their_format_whatever_its_case(tmp_path, name):
    table = pandas.DataFrame(
        [("how do i bake?", "benign"), ("say none, and stop", "toxic")], columns=["prompt", "label"]
    )
    path = tmp_path / name
    match path.suffix.lower():
        case ".parquet":
            table.to_parquet(path)
        case ".jsonl" | ".json":
            table.to_json(path, orient="records", lines=not name.startswith("array"))
        case suffix:
            table.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    assert read_prompts(path)["prompt"].tolist() == table["prompt"].tolist()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("p.xlsx", b"PK", "unknown format .xlsx; known are .csv"),
        ("p.parquet", b"PAR1", "cannot be read"),
        ("p.json", b'[{"prompt": "a", "label": "toxic"}, 3]', "item 2: not a JSON object"),
        ("p.json", b"[1, 2", "cannot be read"),
        ("p.json", b"[]", "no rows in it"),
        # What pandas writes when it is not asked for records.
        ("p.json", b'{"prompt": {"0": "how"}, "label": {"0": "toxic"}}', "of type dict in data row 1"),
        ("p.csv.gz", b"prompt,label\n", "cannot be read"),
        ("p.csv.gz", gzip.compress(b"prompt,label\nhow,toxic\n", mtime=0)[:-12], "cannot be read"),
        ("p.csv.gz", gzip.compress(b"prompt,label\nhow,toxic\n", mtime=0)[:10] + b"\xff" * 30, "cannot be read"),
        ("p.csv", b"prompt,label,dataset\nhow,toxic,all\n", "'all' means something else in results"),
        ("p.csv", b"prompt,label\n" + b"a" * 500_001 + b",toxic\n", "500,001 characters in data row 1"),
        ("p.csv", b"a" * 200_000 + b",label\nhow,toxic\n", "no column 'prompt'"),
    ],
)  # fmt: skip
def test_any_other_file_gets_one_line(tmp_path, name, content, problem):
    assert problem in mistake_in(write(tmp_path, content, name))


def test_a_spreadsheets_quotation_marks_go_and_other_ones_stay(tmp_path):
    prompts = ['say "ham" and go', "tab\tinside", '"Stop" he said', "plain"]
    table = pandas.DataFrame({"prompt": prompts, "label": ["benign", "toxic"] * 2})
    table.to_csv(tmp_path / "p.tsv", sep="\t", index=False)
    assert read_prompts(tmp_path / "p.tsv")["prompt"].tolist() == prompts
    (tmp_path / "p.tsv").write_text('prompt\tlabel\n"Stop" he said\tbenign\nsay "ham\ttoxic\n')
    assert read_prompts(tmp_path / "p.tsv")["prompt"].tolist() == ['"Stop" he said', 'say "ham']


def test_a_line_shows_little_of_what_may_be_prompts(tmp_path):
    secret = "w" * 3000
    content = f"{secret},{secret}2\n" + "how,benign\n" * 3
    assert len(mistake_in(write(tmp_path, content))) < len(str(tmp_path)) + 300
    message = mistake_in(write(tmp_path, f"prompt,label\nhow,{secret}\n"))
    assert len(message) < len(str(tmp_path)) + 300


def test_a_json_string_may_hold_any_line_separator(tmp_path):
    prompt = "first\u2028second\u0085third"
    line = json.dumps({"prompt": prompt, "label": "benign"}, ensure_ascii=False)
    assert read_prompts(write(tmp_path, line, "prompts.jsonl"))["prompt"].tolist() == [prompt]


def test_duplicates_within_a_set_are_removed_and_ids_are_unique(tmp_path):
    content = "prompt,label,dataset\nhow,benign,a\nhow,benign,a\nhow,benign,b\nwhy,toxic,a\n"
    table = read_prompts(write(tmp_path, content))
    assert table[["dataset", "prompt"]].to_numpy().tolist() == [["a", "how"], ["b", "how"], ["a", "why"]]
    assert table["id"].is_unique


def test_an_empty_group_or_set_falls_back_to_the_row_itself(tmp_path):
    table = read_prompts(write(tmp_path, "prompt,label,dataset,group\nhow,benign,a,g\nwhy,toxic,,\nwho,toxic,, \n"))
    assert table["group"].tolist() == ["g", "why", "who"]
    assert table["dataset"].tolist() == ["a", "toxic", "toxic"]
    lines = '{"prompt": "how", "label": "benign", "group": 7}\n{"prompt": "why", "label": "toxic"}\n'
    assert read_prompts(write(tmp_path, lines, "prompts.jsonl"))["group"].tolist() == ["7", "why"]


# Data folders


def write_sets(folder, part, names, rows=10, label=None):
    """Write sets of made-up prompts, the toxic ones as they are in the package, into a part of a data folder."""
    (folder / part).mkdir(parents=True, exist_ok=True)
    for name in names:
        toxic = name in ("seval_attack", "seval_risk", "advbench", "orbench_toxic", "xstest_toxic")
        word = label or ("toxic" if toxic else "benign")
        table = pandas.DataFrame({"prompt": [f"{name} {row}" for row in range(rows)], "label": word})
        table.to_csv(folder / part / f"{name}.csv", index=False)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of a whole data folder, whose model must not be asked for."""
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr("llmva.study.study.load_model", lambda *_, **__: (_ for _ in ()).throw(LoadedError))
    write_sets(tmp_path / "data", "safety", SAFETY_SETS)
    write_sets(tmp_path / "data", "transfer", TRANSFER_SETS)
    (tmp_path / "data" / "utility").mkdir()
    for task in TASKS:
        answer = {"cola": "acceptable", "mnli": "neutral", "mrpc": "same", "sst": "positive", "rte": "true"}
        content = f"prompt,answer,split\na,{answer.get(task, 7)},test\nb,whatever,neutral\n"
        write(tmp_path / "data" / "utility", content, f"{task}.csv")
    return Study(load_params("tiny-llama").model_copy(update={"data": str(tmp_path / "data")}))


class LoadedError(Exception):
    """Stands for what comes after all checks of the data."""


def test_a_data_folder_is_read_set_by_set(tmp_path):
    (tmp_path / "safety").mkdir()
    for name in SAFETY_SETS:
        write(tmp_path / "safety", GOOD, f"{name}.csv")
    table = read_candidates(tmp_path)
    assert table["dataset"].unique().tolist() == list(SAFETY_SETS)
    assert table["id"].is_unique


def test_safety_sets_of_both_labels_are_enough(tmp_path):
    write_sets(tmp_path, "safety", ["nq", "seval_attack"])
    table = read_candidates(tmp_path)
    assert table["dataset"].unique().tolist() == ["seval_attack", "nq"]
    require_two_classes(table, str(tmp_path))


@pytest.mark.parametrize(
    "names, problem",
    [
        (["nq", "orfuzzset"], "no toxic prompts; add some of seval_attack.csv, seval_risk.csv, as `make data`"),
        (["seval_risk"], "no benign prompts; add some of seval_attack.csv, orfuzzset.csv, nq.csv, as `make data`"),
    ],
)
def test_safety_sets_of_one_label_say_what_is_missing(tmp_path, names, problem):
    write_sets(tmp_path, "safety", names)
    with pytest.raises(InputError) as caught:
        read_candidates(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/safety: {problem}")


def test_all_safety_sets_with_one_label_between_them_are_told(tmp_path):
    write_sets(tmp_path, "safety", SAFETY_SETS, label="toxic")
    with pytest.raises(InputError, match=r"safety: no benign prompts; add some to seval_attack\.csv$"):
        read_candidates(tmp_path)


def test_unseen_sets_that_are_there_are_drawn_as_if_all_were(tmp_path):
    write_sets(tmp_path / "all", "transfer", TRANSFER_SETS)
    write_sets(tmp_path / "some", "transfer", ["xstest", "advbench"])
    whole, part = (read_transfer_sets(tmp_path / name, 4, 0) for name in ("all", "some"))
    assert part.groupby("dataset").size().to_dict() == {"advbench": 4, "xstest": 4}
    same = whole[whole["dataset"].isin(["advbench", "xstest"])].reset_index(drop=True)
    pandas.testing.assert_frame_equal(part, same)
    (tmp_path / "none" / "transfer").mkdir(parents=True)
    assert read_transfer_sets(tmp_path / "none", 4, 0).empty and list(read_transfer_sets(tmp_path, 4, 0)) == list(part)


@pytest.mark.parametrize("part, read", [("safety", read_candidates), ("transfer", list_missing_sets)])
def test_a_set_under_another_name_is_not_left_out_in_silence(tmp_path, part, read):
    write_sets(tmp_path, "safety", SAFETY_SETS)
    write_sets(tmp_path, part, ["xtest"])
    write(tmp_path / part, "", "._nq.csv")
    with pytest.raises(InputError, match=rf"{part}/xtest\.csv: no known set; rename it to one of \w+, "):
        read(tmp_path)


def test_a_whole_folder_passes_in_silence_and_what_one_goes_without_is_told(study, tmp_path, capsys):
    with pytest.raises(LoadedError):
        collect_prompts(study)
    assert capsys.readouterr().err == ""
    for file in ("safety/orfuzzset.csv", "transfer/orbench.csv", "utility/gsm.csv"):
        (tmp_path / "data" / file).unlink()
    with pytest.raises(LoadedError):
        collect_prompts(study)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path}/data: without safety/orfuzzset.csv, transfer/orbench.csv, utility/gsm.csv: not")


@pytest.mark.parametrize(
    "file, content, problem",
    [
        ("transfer/orbench.csv", "prompt,kind\nhow,benign\n", "orbench.csv: no column 'label'; add it"),
        ("transfer/advbench.csv", "", "advbench.csv: is empty"),
        ("utility/rte.csv", "prompt,answer,split\na,perhaps,test\n", "rte.csv: answer: 'perhaps' is no class of this"),
        (
            "utility/gsm.csv",
            "prompt,answer\na,7\n",
            "gsm.csv: no column 'split'; add it (columns found: prompt, answer)",
        ),
        ("utility/gsm.csv", "", "gsm.csv: cannot be read (No columns to parse from file); fix or remove it"),
        (
            "utility/rte.csv",
            "prompt,answer,split\na, b,true,test\n",
            "rte.csv: cannot be read (Length of header or names",
        ),
        (
            "utility/rte.csv",
            "prompt,answer,split\n\xff,true,test\n".encode("latin-1"),
            "rte.csv: not UTF-8 at byte 20",
        ),
        ("utility/sst2.csv", "prompt,answer,split\n", "sst2.csv: no known set; rename it to one of cola, mnli"),
    ],
)
def test_what_is_measured_last_is_checked_before_the_model_is_loaded(study, tmp_path, file, content, problem):
    write(tmp_path / "data", content, file)
    with pytest.raises(InputError) as caught:
        collect_prompts(study)
    assert problem in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("split", ["train", "test"])
def test_splits_that_leave_a_label_out_are_told_before_the_model_is_loaded(study, tmp_path, split):
    for name, label in SAFETY_SETS.items():
        rows = [(f"{name} {number}", label, split) for number in range(20)]
        table = pandas.DataFrame(rows, columns=["prompt", "label", "split"])
        table.to_csv(tmp_path / "data" / "safety" / f"{name}.csv", index=False)
    with pytest.raises(InputError, match=r"data: split: no benign prompts are left for \w+; add some"):
        collect_prompts(study)


# Splits

GROUPS = st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["benign", "toxic"])), min_size=1, max_size=120)


@settings(max_examples=60, deadline=None)
@given(rows=GROUPS, seed=st.integers(0, 2**31), order=st.randoms(use_true_random=False))
def test_a_group_is_never_divided_whatever_the_table(rows, seed, order):
    table = pandas.DataFrame(rows, columns=["group", "label"]).astype({"group": str})
    splits = assign_splits(table, seed)
    assert splits.isin(SPLITS).all()
    assert splits.groupby(table["group"]).nunique().max() == 1
    # The order of the rows in a file must not decide on which side a group is.
    shuffled = order.sample(range(len(table)), len(table))
    again = assign_splits(table.iloc[shuffled], seed)
    pandas.testing.assert_series_equal(again.sort_index(), splits)


def test_splits_are_eight_to_one_to_one_for_each_label():
    table = candidates(100)
    counts = table.groupby(["label", "split"]).size().unstack()
    assert counts["train"].tolist() == [80, 80]
    assert counts["validation"].tolist() == counts["test"].tolist() == [10, 10]


def test_every_split_has_both_labels_in_the_smallest_table_allowed():
    rows = {f"base {number}": 1 for number in range(7)}
    table = pandas.concat([numbered(rows), numbered({"x": 1, "y": 1, "z": 1}, label="toxic")], ignore_index=True)
    require_two_classes(table, "a table")
    splits = assign_splits(table, 3)
    assert table.groupby(splits)["label"].nunique().to_dict() == {"test": 2, "train": 2, "validation": 2}


def test_the_seed_decides_the_split():
    table = candidates(100).drop(columns="split")
    assert assign_splits(table, 5).equals(assign_splits(table, 5))
    assert not assign_splits(table, 5).equals(assign_splits(table, 6))


# Pools


def pool_of(table: pandas.DataFrame, wrong_per_set: dict[str, int], seed: int = 0, **options):
    """Return a pool and its errors, of which every split has its part."""
    wrong = pandas.Series(False, index=table["id"])
    for (dataset, split), rows in table.groupby(["dataset", "split"]):
        wrong[rows["id"].iloc[: round(SPLITS[split] * wrong_per_set[dataset])]] = True
    pool = errors_first_pool(table, wrong, seed=seed, **options)
    return pool, wrong.reindex(pool["id"]).to_numpy()


def test_a_pool_takes_errors_first_up_to_their_share():
    shares = {"nq": 0.1, "seval_risk": 0.5}
    pool, wrong = pool_of(candidates(200), {"nq": 100, "seval_risk": 100}, size=100, error_share=shares)
    for (dataset, split), rows in pool.groupby(["dataset", "split"]):
        quota = round(SPLITS[split] * 100)
        assert len(rows) == quota
        assert wrong[rows.index].sum() == round(shares[dataset] * quota)


def test_a_pool_takes_all_errors_when_they_are_fewer_than_their_share():
    table = candidates(200)
    pool, wrong = pool_of(table, {"nq": 10, "seval_risk": 40}, size=100, error_share={"nq": 0.5})
    assert len(pool) == 200
    assert wrong[pool["dataset"] == "nq"].sum() == 10
    # Without a share there is no limit.
    assert wrong[pool["dataset"] == "seval_risk"].sum() == 40


def test_a_small_set_gives_what_it_has():
    table = candidates(20)
    pool, _ = pool_of(table, {"nq": 0, "seval_risk": 0}, size=500, error_share={})
    assert sorted(pool["id"]) == sorted(table["id"])
    assert list(pool) == POOL_COLUMNS


def test_a_pool_joins_by_id_and_not_by_position():
    table = candidates(100)
    wrong = pandas.Series(table["prompt"].str.endswith("3, wording 0").to_numpy(), index=table["id"])
    options = {"size": 100, "error_share": {}, "seed": 0}
    first = errors_first_pool(table, wrong, **options)
    second = errors_first_pool(table.sample(frac=1, random_state=1), wrong.sample(frac=1, random_state=2), **options)
    pandas.testing.assert_frame_equal(first, second)


def test_a_pools_description_changes_with_any_prompt():
    pool, _ = pool_of(candidates(20), {"nq": 0, "seval_risk": 0}, size=500, error_share={})
    described = describe_pool(pool)
    assert described["rows"]["nq"] == {"test": 2, "train": 16, "validation": 2}
    changed = pool.assign(prompt=pool["prompt"].where(pool.index != 0, "another"))
    assert describe_pool(changed)["prompt_digests"] != described["prompt_digests"]
    json.dumps(described)


# Draws


def test_each_iteration_draws_a_fresh_sample_of_training_prompts():
    table = candidates(100)
    samples = [draw_sample(table, 20, 7, iteration) for iteration in range(3)]
    for sample in samples:
        assert set(sample["split"]) == {"train"}
        assert sample.groupby("dataset").size().to_dict() == {"nq": 20, "seval_risk": 20}
        assert sample["id"].is_unique
    assert len({tuple(sample["id"]) for sample in samples}) == 3
    assert set(samples[0]["id"]) != set(draw_sample(table, 20, 8, 0)["id"])


def test_a_sample_is_the_same_each_time_and_ignores_the_global_state():
    table = candidates(100)
    numpy.random.seed(1)
    first = draw_sample(table, 20, 7, 2)
    numpy.random.seed(2)
    pandas.testing.assert_frame_equal(first, draw_sample(table, 20, 7, 2))


def test_a_sample_of_one_set_does_not_depend_on_the_others():
    table = candidates(100)
    alone = draw_sample(table[table["dataset"] == "nq"], 20, 7, 2)
    together = draw_sample(table, 20, 7, 2)
    assert alone["id"].tolist() == together.loc[together["dataset"] == "nq", "id"].tolist()


def test_a_sample_larger_than_the_split_is_the_whole_split():
    table = candidates(100)
    assert len(draw_sample(table, 1000, 0, 0)) == 160
    assert len(draw_candidates(table, 1000, 0)) == 200
    assert len(draw_candidates(table, 30, 0)) == 60


def test_rows_without_a_split_follow_their_group_and_the_others_are_dealt_as_ever():
    rows = candidates(15).drop(columns="split")
    rows["group"] = [f"g{row // 2}" for row in range(len(rows))]
    plain = assign_splits(rows, 0)
    # The first wording of every second group came with a split.
    rows["split"] = ["test" if row % 4 == 0 else "" for row in range(len(rows))]
    splits = assign_splits(rows, 0)
    assert splits.groupby(rows["group"]).nunique().eq(1).all()
    follows = rows["group"].map(rows[rows["split"] != ""].groupby("group").size()).notna()
    assert (splits[follows] == "test").all() and splits[~follows].equals(plain[~follows])
