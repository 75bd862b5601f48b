"""The tables of controls and of study seeds: hand-computed means, the lowest and the highest, and what is missing."""

import numpy
import pandas
import pytest
from test_tables import folders, long_results  # noqa: F401 - a fixture

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.results import write_results
from llmva.paper.tables import build
from llmva.paper.tables.layout import WORDS


def write_noise(slug, values):
    """Noise 0.0 and 1.0, all measures alike."""
    rows = [(name, level, value) for name in WORDS["noise"]["measures"] for level, value in values.items()]
    frame = pandas.DataFrame(rows, columns=["metric", "noise", "value"])
    write_results(slug, "noise", frame.assign(method="Noised", dataset="validation", n=200, seed=0))


def test_the_mean_over_models_stands_last_with_the_lowest_and_the_highest_model():
    write_noise("tiny-llama", {0.0: 0.5, 1.0: 0.9})
    write_noise("tiny-llama-s1", {0.0: 0.7, 1.0: 0.7})
    write_noise("tiny-qwen2", {0.0: 0.2, 1.0: 1.0})
    table = build.build_table("noise", ["tiny-llama", "tiny-llama-s1", "tiny-qwen2"])
    assert list(table["model"]) == ["tiny-llama", "tiny-llama", "tiny-qwen2", "tiny-qwen2", "mean", "mean"]
    assert list(table["case"]) == ["0.0", "1.0"] * 3
    llama, mean = table[table["model"] == "tiny-llama"].iloc[0], table[table["model"] == "mean"].iloc[0]
    assert (llama["f1"], llama["f1_low"], llama["f1_high"]) == pytest.approx((0.6, 0.5, 0.7))
    # Seeds first, then models: the mean of 0.6 and 0.2.
    assert (mean["f1"], mean["f1_low"], mean["f1_high"]) == pytest.approx((0.4, 0.2, 0.6))


def test_one_model_is_shown_with_the_range_of_its_seeds_and_one_run_with_none():
    write_noise("smol", {0.0: 0.5, 1.0: 0.9})
    write_noise("smol-s1", {0.0: 0.7, 1.0: 0.7})
    for slugs, cell, said in (
        (["smol", "smol-s1"], "0.600 [0.500, 0.700]", "Means over two seeds of one model, in brackets the lowest"),
        (["smol"], "| 0.500 |", "Of one run of one model, so that there is no range."),
    ):
        build.save_table("noise", slugs)
        written = (paths.TABLES / "noise_smol.md").read_text(encoding="utf-8")
        assert cell in " ".join(written.split()) and said in written and ("[" in written) is (len(slugs) > 1)
    assert list(build.build_table("noise", ["smol", "smol-s1"])["count"]) == [2] * 4


def test_an_undefined_kappa_is_a_gap_and_methods_keep_their_order():
    rows = [
        ("LLM-VA", "benign", "kappa", 0.8),
        ("LLM-VA", "benign", "agreement", 0.9),
        ("Original", "benign", "agreement", 1.0),
    ]
    frame = pandas.DataFrame(rows, columns=["method", "dataset", "metric", "value"])
    write_results("tiny-llama", "judges", frame.assign(first="guard", second="phrases", n=100, seed=0))
    table = build.build_table("judges", ["tiny-llama"])
    assert list(table["method"]) == ["Original", "LLM-VA"] * 2
    assert set(table["case"]) == {"guard and phrases"}
    assert numpy.isnan(table["kappa"].iloc[0]) and table["kappa"].iloc[1] == 0.8
    build.save_table("judges", ["tiny-llama"])
    printed = [line for line in (paths.TABLES / "judges.md").read_text().splitlines() if "| Original" in line]
    assert "–" in printed[0]


def test_a_missing_measure_is_named():
    frame = pandas.DataFrame({"metric": ["f1"], "noise": 0.0, "value": 0.5, "method": "Noised"})
    write_results("tiny-llama", "noise", frame.assign(dataset="validation", n=200, seed=0))
    with pytest.raises(InputError, match="no strict_f1; run `make noise` again"):
        build.build_table("noise", ["tiny-llama"])


def test_study_seeds_of_one_organism_are_one_row_and_organisms_are_not_mixed():
    for slug, shift in (("tiny-llama", 0.0), ("tiny-llama-draw1", 0.02), ("tiny-qwen2", 0.05)):
        write_results(slug, "table2", long_results(shift))
    table = build.build_table("draws", ["tiny-llama", "tiny-llama-draw1", "tiny-qwen2"]).set_index(["model", "method"])
    llama, qwen = table.loc[("tiny-llama", "LLM-VA")], table.loc[("tiny-qwen2", "LLM-VA")]
    assert llama["studies"] == 2 and qwen["studies"] == 1
    assert llama["strict_f1"] == pytest.approx(0.82) and llama["strict_f1_worst"] == pytest.approx(0.81)
    assert llama["strict_f1_sd"] == pytest.approx(0.02 / 2**0.5)
    assert numpy.isnan(qwen["strict_f1_sd"])


def test_a_fifth_of_the_trials_stands_beside_all_of_them():
    slugs = ["tiny-llama", "tiny-qwen2", "tiny-llama-fifth", "tiny-qwen2-fifth", "tiny-phi3"]
    for slug, shift in zip(slugs, (0.0, 0.04, -0.03, 0.01, 0.05), strict=True):
        write_results(slug, "table2", long_results(shift))
    table = build.build_table("budget", slugs).set_index(["model", "method"])
    # One that has no short study is left out.
    assert set(table.index.unique("model")) == {"tiny-llama", "tiny-qwen2", "mean"}
    mean, llama = table.loc[("mean", "LLM-VA")], table.loc[("tiny-llama", "LLM-VA")]
    assert mean["change"] == pytest.approx(-0.03) == llama["change"]
    assert mean["strict_f1"] - llama["strict_f1"] == pytest.approx(0.02)
    assert mean["worst"] == llama["strict_f1_fifth"] and numpy.isnan(llama["p"])
    (path,) = [path for path in build.save_table("budget", slugs) if path.suffix == ".md"]
    assert "A fifth" in path.read_text(encoding="utf-8") and "tiny-llama |" not in path.read_text(encoding="utf-8")
