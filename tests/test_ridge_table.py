"""The table of LLM-VA-R over organisms: hand-computed means, worst cases and paired tests."""

import itertools

import numpy
import pandas
import pytest
from scipy.stats import rankdata, wilcoxon

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.provenance import random_generator
from llmva.core.results import result_path, write_results
from llmva.paper.tables import build
from llmva.paper.tables.items.llm_va_r import ARITHMETIC, COMPARED
from llmva.paper.tables.resampling import paired_p

RIDGE_METRICS = (*COMPARED, ARITHMETIC)
SLUGS = [f"tiny-llama-s{seed}" for seed in range(10, 16)]
VALUES = {"LLM-VA": [0.5, 0.6, 0.9, 0.7, 0.8, 0.55], "LLM-VA-R": [0.9, 0.95, 0.95, 0.94, 0.93, 0.96]}


def write_ridge(slug, rows):
    """Final numbers (method, metric, value), and an iteration's, which is none of the table's."""
    frame = pandas.DataFrame(rows, columns=["method", "metric", "value"]).dropna().assign(iteration=numpy.nan)
    curve = frame.assign(iteration=3, value=0.0)
    write_results(slug, "ridge", pandas.concat([frame, curve]).assign(dataset="all", n=200, seed=0))


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(paths, "TABLES", tmp_path / "tables")
    for number, slug in enumerate(SLUGS):
        rows = [(method, metric, values[number]) for method, values in VALUES.items() for metric in RIDGE_METRICS]
        write_ridge(slug, rows)


def test_every_seed_is_a_study_of_its_own():
    table = build.build_table("ridge", SLUGS).set_index("method")
    own = VALUES["LLM-VA"]
    assert table.loc["LLM-VA", "studies"] == 6
    assert table.loc["LLM-VA", "test_strict_f1_mean"] == pytest.approx(numpy.mean(own))
    assert table.loc["LLM-VA", "test_strict_f1_sd"] == pytest.approx(numpy.std(own, ddof=1))
    assert table.loc["LLM-VA", "kept_worst"] == 0.5
    low, high = table.loc["LLM-VA", ["kept_mean_low", "kept_mean_high"]]
    assert min(own) <= low < numpy.mean(own) < high <= max(own)
    assert list(table.index) == ["LLM-VA", "LLM-VA-R"]
    # All six differences point one way: the exact two-sided p is 2 / 2^6.
    assert table.loc["LLM-VA", "kept_gsm_p"] == pytest.approx(2 / 64)
    assert numpy.isnan(table.loc["LLM-VA-R", "kept_p"])
    assert table.loc["LLM-VA-R", "kept_p_paper"] == pytest.approx(2 / 64)
    assert numpy.isnan(table.loc["LLM-VA", "kept_p_paper"])


def test_arithmetic_is_no_column_where_no_study_has_it(tmp_path):
    for number, slug in enumerate(SLUGS):
        write_ridge(slug, [(method, metric, own[number]) for method, own in VALUES.items() for metric in COMPARED])
    assert "kept_gsm_mean" not in build.build_table("ridge", SLUGS)
    build.save_table("ridge", SLUGS)
    written = (tmp_path / "tables" / "ridge.md").read_text()
    assert "utility kept" in written and "arithmetic" not in written


def test_the_stop_rule_is_judged_by_what_it_loses():
    stopping = {"LLM-VA": ([0.9, 0.7], [0.8, 0.7], [3, None]), "LLM-VA-R": ([0.95, 0.9], [0.95, 0.9], [None, None])}
    for number, slug in enumerate(SLUGS[:2]):
        rows = [(method, metric, values[number]) for method, values in VALUES.items() for metric in RIDGE_METRICS]
        for method, columns in stopping.items():
            names = ("best_validation", "best_before_stop", "stop_rule")
            rows += [(method, name, column[number]) for name, column in zip(names, columns, strict=True)]
        write_ridge(slug, rows)
    build.save_table("ridge", SLUGS[:2])
    found = pandas.read_csv(paths.TABLES / "ridge_stop.csv").set_index("method")
    assert found.loc["LLM-VA"].to_list() == pytest.approx([1, 2, 0.8, 0.75, 0.1])
    assert found.loc["LLM-VA-R"].to_list() == pytest.approx([0, 2, 0.925, 0.925, 0])


def test_the_test_is_scipys_where_no_ranks_are_tied():
    differences = random_generator(0, "pairs").normal(0.3, 1, 12)
    values = pandas.Series(numpy.zeros(12))
    assert paired_p(values + differences, values) == pytest.approx(wilcoxon(differences, method="exact").pvalue)
    assert numpy.isnan(paired_p(values, values))
    # What does not differ is left out.
    assert paired_p(pandas.Series([0.9, 0.8, 0.7]), pandas.Series([0.5, 0.9, 0.7])) == 1


def test_with_ties_all_signs_are_counted():
    differences = numpy.array([0.4, -0.1, 0.4, 0.2, 0.1, -0.2, 0.3, 0.4])
    ranks = rankdata(numpy.abs(differences).round(12))
    sums = [numpy.dot(ranks, signs) for signs in itertools.product((0, 1), repeat=8)]
    found = ranks[differences > 0].sum()
    expected = 2 * min(numpy.mean(sums >= found), numpy.mean(sums <= found))
    base = pandas.Series(numpy.full(8, 0.5))
    assert paired_p(base + differences, base) == pytest.approx(expected)
    assert paired_p(base, base + differences) == pytest.approx(expected)


def test_families_count_alike_however_many_seeds_they_have():
    values = {"tiny-llama-s10": 0.5, "tiny-llama-s11": 0.7, "tiny-qwen2-s10": 0.9}
    for slug, value in values.items():
        rows = [(method, metric, value) for method in VALUES for metric in RIDGE_METRICS]
        write_ridge(slug, rows)
    table = build.build_table("ridge", list(values)).set_index("method")
    assert table.loc["LLM-VA", "kept_mean"] == pytest.approx((0.6 + 0.9) / 2)


def test_three_comparisons_are_corrected_for_their_number(capsys):
    # 2 / 2^6 each, and three times that after Holm's correction.
    with pytest.raises(SystemExit):
        build.main(["ridge", "--models", *SLUGS])
    told = "strict F1, test 0.094, strict F1, transfer 0.094, utility kept 0.094."
    assert f"LLM-VA-R against LLM-VA, p corrected for three comparisons (Holm): {told}" in capsys.readouterr().out


def test_a_beta_is_compared_with_none_and_corrected_likewise(capsys):
    # Ahead in five of the six studies, and twice as far behind in the last.
    for number, slug in enumerate(SLUGS):
        values = {**VALUES, "LLM-VA-R, beta": [value + (0.01 if number < 5 else -0.02) for value in VALUES["LLM-VA-R"]]}
        write_ridge(slug, [(name, metric, own[number]) for name, own in values.items() for metric in RIDGE_METRICS])
    with pytest.raises(SystemExit):
        build.main(["ridge", "--models", *SLUGS])
    p = paired_p(pandas.Series([0.01] * 5 + [-0.02]), pandas.Series(numpy.zeros(6)))
    told = "LLM-VA-R, beta against LLM-VA-R, p corrected for three comparisons (Holm): strict F1, test"
    assert f"{told} {min(3 * p, 1):.3f}" in capsys.readouterr().out


def test_a_study_without_a_method_is_named():
    write_ridge(SLUGS[0], [("LLM-VA", "kept", 1.0)])
    with pytest.raises(InputError, match="missing for a method or a study"):
        build.build_table("ridge", SLUGS)


def test_results_of_before_the_key_columns_are_an_error():
    for slug in SLUGS:
        path = result_path(slug, "ridge")
        pandas.read_csv(path).drop(columns="iteration").to_csv(path, index=False)
    with pytest.raises(InputError, match="no column 'iteration'; run `make fresh` again"):
        build.build_table("ridge", SLUGS)


def test_studies_without_results_are_left_out_by_name_or_are_an_error(capsys):
    with pytest.raises(SystemExit) as stop:
        build.main(["ridge", "--present", "--models", *SLUGS, "tiny-llama-s77"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "ridge: without tiny-llama-s77, which have no results of it yet" in printed and "Studies: 6, each" in printed
    with pytest.raises(SystemExit) as stop:
        build.main(["ridge", "--models", *SLUGS, "tiny-llama-s77"])
    assert stop.value.code == 2


def test_it_is_printed_on_its_own_and_never_with_all_the_others(capsys):
    with pytest.raises(SystemExit) as stop:
        build.main(["ridge", "--models", *SLUGS])
    assert stop.value.code == 0
    assert "Studies: 6" in capsys.readouterr().out
    assert {path.name for path in paths.TABLES.iterdir()} >= {"ridge.csv", "ridge_studies.csv", "ridge.md", "ridge.tex"}
    with pytest.raises(SystemExit) as stop:
        build.main(["all", "--models", *SLUGS])
    assert stop.value.code == 2
