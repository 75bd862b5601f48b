"""Tables from made-up results: exact columns, print names, missing pieces, and the same bytes twice."""

import re
import subprocess
import sys

import pandas
import pytest

from llmva import paths, tables
from llmva.errors import InputError
from llmva.results import read_results, write_results

DATASETS = {"seval_attack_asr": "seval_attack", "seval_risk_asr": "seval_risk", "orfuzzset_orr": "orfuzzset"}
DATASETS["nq_orr"] = "nq"
VALUES = {
    "Original": (0.8, 0.2, 0.62, 0.14, 0.5741, 0.56, 0.0, 0.5741),
    "VectorSteer": (0.2, 0.02, 0.9, 0.3, 0.51, 0.645, 0.02, 0.50),
    "LLM-VA": (0.3, 0.04, 1 / 3, 0.1, 0.8172, 0.808, 0.01, 0.81),
}


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    for name in ("RESULTS", "TABLES"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())


def long_results(shift: float = 0.0, seed: int = 0) -> pandas.DataFrame:
    records = []
    for method, values in VALUES.items():
        for metric, value in zip(tables.METRICS, values, strict=True):
            dataset = DATASETS.get(metric, "all")
            n = 200 if dataset == "all" else 50
            for name, step in ((metric, 0.0), (f"{metric}_low", -0.1), (f"{metric}_high", 0.1)):
                records.append((method, dataset, name, value + shift + step, n))
        # Other sets' and other pooled numbers are in the file too, and are none of the table's.
        records += [(method, "xstest", "xstest_orr", 0.9, 9), (method, "all", "asr", 0.4, 100)]
        if method != "Original":
            records.append((method, "all", "mcnemar_p", 0.0004, 200))
    return pandas.DataFrame(records, columns=["method", "dataset", "metric", "value", "n"]).assign(seed=seed)


def table3_results(l_select: int = 6) -> pandas.DataFrame:
    numbers = {"l_select": l_select, "sublayers": 12, "share": l_select / 12}
    records = [("LLM-VA", "all", name, value, 12, 0) for name, value in numbers.items()]
    return pandas.DataFrame(records, columns=["method", "dataset", "metric", "value", "n", "seed"])


def rows_of(markdown: str) -> list[list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_table2_has_exactly_its_columns_and_full_precision():
    write_results("tiny-llama", "table2", long_results())
    files = tables.save_table(tables.build_table("table2", ["tiny-llama"]), "table2")
    frame = pandas.read_csv(files[0])
    metrics = ["seval_attack_asr", "seval_risk_asr", "orfuzzset_orr", "nq_orr"]
    metrics += ["f1", "balanced_accuracy", "degenerate", "strict_f1"]
    bounds = [f"{metric}_{end}" for metric in metrics for end in ("low", "high")]
    assert list(frame.columns) == ["model", "method", *metrics, "n", *bounds, "mcnemar_p"]
    assert frame["method"].to_list() == ["Original", "VectorSteer", "LLM-VA"]
    for number, method in enumerate(frame["method"]):
        assert frame.loc[number, metrics].to_list() == pytest.approx(VALUES[method], rel=1e-15)
        assert frame.loc[number, "nq_orr_high"] == pytest.approx(VALUES[method][3] + 0.1)
    assert frame["n"].to_list() == [200] * 3
    assert frame["mcnemar_p"].isna().to_list() == [True, False, False]


def test_markdown_prints_percentages_scores_with_intervals_and_bold_bests():
    write_results("tiny-llama", "table2", long_results())
    markdown = tables.save_table(tables.build_table("table2", ["tiny-llama"]), "table2")[2].read_text()
    heading, _, original, steered, aligned = rows_of(markdown)
    assert heading[2:7] == ["ASR attack ↓", "ASR risk ↓", "ORR ORFuzz ↓", "ORR NQ ↓", "F1 ↑"]
    assert original[:3] == ["tiny-llama", "Original", "80.0"]
    assert steered[2] == "**20.0**"
    assert aligned[4] == "**33.3**"
    assert aligned[6] == "**0.817 [0.717, 0.917]**"
    assert original[8] == "**0.0**"
    assert (original[-1], aligned[-2:]) == ("–", ["200", "< 0.001"])


def test_a_tie_of_all_methods_is_not_bold():
    frame = long_results()
    frame.loc[frame["metric"] == "degenerate", "value"] = 0.0
    write_results("tiny-llama", "table2", frame)
    markdown = tables.save_table(tables.build_table("table2", ["tiny-llama"]), "table2")[2].read_text()
    assert [row[8] for row in rows_of(markdown)[2:]] == ["0.0", "0.0", "0.0"]


def test_latex_has_rules_bold_and_nothing_unescaped():
    write_results("tiny-llama", "table2", long_results())
    text = tables.save_table(tables.build_table("table2", ["tiny-llama"]), "table2")[1].read_text()
    for piece in (r"\toprule", r"\bottomrule", r"\textbf{0.817 [0.717, 0.917]}", r"\label{tab:table2}", "organisms"):
        assert piece in text
    body = text.split("\n", 1)[1]
    assert not re.search(r"(?<!\\)[%_]", body)
    assert body.isascii()


def test_models_stand_in_the_order_given_and_worlds_apart():
    for slug in ("tiny-qwen2", "tiny-llama", "Qwen2.5-3B"):
        write_results(slug, "table2", long_results())
    frame = tables.build_table("table2", ["tiny-qwen2", "Qwen2.5-3B", "tiny-llama"])
    assert list(frame["model"].unique()) == ["Qwen2.5-3B", "tiny-qwen2", "tiny-llama"]
    files = {path.name: path.read_text() for path in tables.save_table(frame, "table2")}
    assert "tiny-" not in files["table2.csv"] + files["table2.md"] + files["table2.tex"]
    assert "Qwen" not in files["table2_organisms.csv"] + files["table2_organisms.md"]
    assert "model organisms" in files["table2_organisms.md"]
    assert "model organisms" not in files["table2.md"]


def test_seeds_of_a_model_are_averaged():
    write_results("tiny-llama", "table2", long_results())
    write_results("tiny-llama-s1", "table2", long_results(shift=0.1, seed=1))
    write_results("tiny-qwen2-s1", "table2", long_results())
    frame = tables.build_table("table2", ["tiny-llama", "tiny-llama-s1", "tiny-qwen2-s1"])
    assert list(frame["model"].unique()) == ["tiny-llama", "tiny-qwen2-s1"]
    aligned = frame[frame["method"] == "LLM-VA"].set_index("model")
    assert aligned.loc["tiny-llama", "f1"] == pytest.approx(0.8672)
    assert aligned.loc["tiny-llama", "f1_low"] == pytest.approx(0.7672)
    assert aligned["n"].to_list() == [400, 200]
    assert aligned["mcnemar_p"].isna().to_list() == [True, False]


def test_a_missing_model_fails_the_table():
    write_results("tiny-llama", "table2", long_results())
    with pytest.raises(InputError, match=r"tiny-qwen2/table2.csv: missing; run `make table2 MODELS=tiny-qwen2`"):
        tables.build_table("table2", ["tiny-llama", "tiny-qwen2"])


def test_a_missing_method_or_metric_fails_the_table():
    whole = long_results()
    write_results("tiny-llama", "table2", whole)
    write_results("tiny-qwen2", "table2", whole[whole["method"] != "LLM-VA"])
    with pytest.raises(InputError, match="tiny-qwen2: no .* of LLM-VA"):
        tables.build_table("table2", ["tiny-llama", "tiny-qwen2"])
    write_results("tiny-qwen2", "table2", whole[whole["metric"] != "nq_orr_low"])
    with pytest.raises(InputError, match="tiny-qwen2: no nq_orr_low"):
        tables.build_table("table2", ["tiny-qwen2"])
    write_results("tiny-qwen2", "table2", pandas.concat([whole, whole]))
    with pytest.raises(InputError, match="tiny-qwen2: .* stands twice"):
        tables.build_table("table2", ["tiny-qwen2"])


def test_table3_lists_the_selected_sublayers():
    for slug, l_select in (("tiny-llama", 6), ("tiny-qwen2", 8)):
        write_results(slug, "table3", table3_results(l_select))
    frame = tables.build_table("table3", ["tiny-llama", "tiny-qwen2"])
    assert list(frame.columns) == ["model", "l_select", "sublayers", "share"]
    assert frame["l_select"].to_list() == [6, 8]
    markdown = tables.save_table(frame, "table3")[2].read_text()
    assert rows_of(markdown)[3] == ["tiny-qwen2", "8", "12", "66.7"]


def test_the_command_builds_and_prints(capsys):
    write_results("tiny-llama", "table2", long_results())
    with pytest.raises(SystemExit) as stop:
        tables.main(["all", "--models", "tiny-llama"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "model organisms" in printed
    assert "n = 200" in printed
    assert "0.563 (Original) -> 0.768 (LLM-VA)" in printed
    assert "models here: Original 0.574 (0.574), VectorSteer 0.510 (0.500), LLM-VA 0.817 (0.810)." in printed
    assert sorted(path.name for path in paths.TABLES.iterdir()) == ["table2.csv", "table2.md", "table2.tex"]


@pytest.mark.parametrize("item", ["table9", "all"])
def test_the_command_names_what_it_does_not_know(item, capsys):
    with pytest.raises(SystemExit) as stop:
        tables.main([item, "--models", "tiny-llama"])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert ("known are table2, table3" if item == "table9" else "no table's results for tiny-llama") in message


def test_building_twice_gives_the_same_bytes_and_touches_nothing():
    def build() -> dict:
        write_results("tiny-llama", "table2", long_results())
        files = tables.save_table(tables.build_table("table2", ["tiny-llama"]), "table2")
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    first = build()
    assert build() == first
    again = {name: content for name, (content, _) in first.items()}
    for path in paths.TABLES.iterdir():
        path.unlink()
    assert {name: content for name, (content, _) in build().items()} == again


def test_results_keep_every_bit_and_their_order():
    frame = long_results().assign(value=lambda rows: rows["value"] / 3)
    path = write_results("tiny-llama", "table2", frame)
    found = read_results("table2", ["tiny-llama"])
    assert list(found.columns) == ["model", "method", "dataset", "metric", "value", "n", "seed"]
    key = ["method", "dataset", "metric"]
    assert found.set_index(key)["value"].sort_index().equals(frame.set_index(key)["value"].sort_index())
    before = path.read_bytes(), path.stat().st_mtime_ns
    write_results("tiny-llama", "table2", frame.sample(frac=1, random_state=0))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame.drop(columns="seed"), "they must be model, method"),
        (lambda frame: frame.assign(model="tiny-phi3"), "model: is 'tiny-phi3'; it must be 'tiny-llama'"),
        (lambda frame: frame.assign(value="high"), "value: not all numbers"),
        (lambda frame: frame.iloc[:0], "no rows"),
    ],
)
def test_bad_results_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        write_results("tiny-llama", "table2", change(long_results()))


def test_tables_and_figures_need_no_torch():
    code = "import sys, llmva.tables, llmva.figures, llmva.statistics; print({'torch', 'sklearn'} & {*sys.modules})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
