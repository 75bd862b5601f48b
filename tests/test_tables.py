"""Tables from made-up results: exact columns, seeds and means, print names, missing pieces, the same bytes twice."""

import re

import numpy
import pandas
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.paths import ROOT
from llmva.core.results import read_results, write_results
from llmva.core.vocabulary import BASELINES, LOOPS
from llmva.paper.names import add_seeds, count_seeds, describe_runs, is_variant, name_models, order_methods
from llmva.paper.tables import build, paper
from llmva.paper.tables.runs import RATES, columns_of, metrics_of

METRICS = ["seval_attack_asr", "seval_risk_asr", "orfuzzset_orr", "nq_orr"]
METRICS += ["f1", "balanced_accuracy", "degenerate", "strict_f1"]
BOUNDS = [f"{metric}_{end}" for metric in METRICS for end in ("low", "high")]
SPREADS = ["seeds", "f1_sd", "f1_worst", "strict_f1_sd", "strict_f1_worst", "run_p"]
VALUES = {
    "Original": (0.8, 0.2, 0.62, 0.14, 0.5741, 0.56, 0.0, 0.5741),
    "VectorSteer": (0.2, 0.02, 0.9, 0.3, 0.51, 0.645, 0.02, 0.50),
    "LLM-VA": (0.3, 0.04, 0.34, 0.1, 0.8172, 0.808, 0.01, 0.81),
}
DISCORDANT = {"Original": (60, 10), "VectorSteer": (5, 2)}


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    for name in ("RESULTS", "TABLES"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())


def long_frame(records: list[tuple], seed: int = 0) -> pandas.DataFrame:
    return pandas.DataFrame(records, columns=["method", "dataset", "metric", "value", "n"]).assign(seed=seed)


def long_results(shift: float = 0.0, *, item: str = "table2", values: dict = VALUES, apart: dict = DISCORDANT):
    """Results of `table2` or `table4`, every value shifted, bounds a tenth away."""
    records = []
    for method, numbers in values.items():
        for metric, number in zip(metrics_of(RATES[item]), numbers, strict=True):
            value = max(number + shift, 0.0)
            dataset, n = ("all", 200) if metric not in RATES[item] else (metric.rpartition("_")[0], 50)
            for name, step in ((metric, 0.0), (f"{metric}_low", -0.1), (f"{metric}_high", 0.1)):
                records.append((method, dataset, name, value + step, n))
            if metric in RATES[item]:
                records.append((method, dataset, "strict_error", value, n))
        # Other sets' and other pooled numbers are in the file too, and are none of the table's.
        records += [(method, "elsewhere", "elsewhere_orr", 0.9, 9), (method, "all", "asr", 0.4, 100)]
        if method in apart:
            first, second = apart[method]
            p_value = mcnemar([[0, first], [second, 0]], exact=True).pvalue
            counts = {"reference_only": first, "method_only": second, "mcnemar_p": p_value}
            records += [(method, "all", name, float(number), 200) for name, number in counts.items()]
    return long_frame(records)


def methods_results(methods: list[str]) -> pandas.DataFrame:
    values = {method: VALUES["LLM-VA"] for method in methods}
    return long_results(values=values, apart={method: (3, 3) for method in methods if method != "LLM-VA"})


def needs_results(methods: dict[str, tuple[float, float]]) -> pandas.DataFrame:
    records = []
    for method, (finetunes, hooks) in methods.items():
        records += [(method, "all", "finetunes", finetunes, 1), (method, "all", "hooks", hooks, 1)]
    return long_frame(records)


def table3_results(l_select: int = 6) -> pandas.DataFrame:
    numbers = {"l_select": l_select, "sublayers": 12, "share": l_select / 12}
    return long_frame([("LLM-VA", "validation", name, value, 12) for name, value in numbers.items()])


def utility_results(**scores: list[float]) -> pandas.DataFrame:
    records = []
    for method, values in scores.items():
        for task, value in zip(("cola", "mnli", "rte", "mrpc", "sst", "gsm"), values, strict=True):
            records.append((method.replace("_", "-"), task, "f1" if task == "mrpc" else "accuracy", value, 20))
    return long_frame(records)


def rows_of(markdown: str) -> list[list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def blocks_of(markdown: str) -> list[tuple[str, list[list[str]]]]:
    """The captions of a Markdown file and the rows below each, without the rule."""
    parts = re.split(r"(?m)^(?=\*\*)", markdown)[1:]
    return [(part.splitlines()[0], [row for row in rows_of(part) if not row[0].startswith(":--")]) for part in parts]


def save(item: str, *slugs: str) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in build.save_table(item, slugs)}


# Rows


def test_methods_stand_in_their_order_with_variants_behind_their_method():
    shuffled = ["LLM-VA-R", "Zeta", "LLM-VA", "AlphaSteer+ (benign)", "Fine-tuning", "AlphaSteer+", "Alpha", "Original"]
    shuffled += ["LLM-VA (guarded)", "SCANS", "Alpha (fast)", "LLM-VA (released code)", "LLM-VA (long)", "AlphaSteer"]
    assert order_methods(shuffled) == [
        *("Original", "AlphaSteer", "AlphaSteer+", "AlphaSteer+ (benign)", "SCANS", "Fine-tuning"),
        *("Alpha", "Alpha (fast)", "Zeta"),
        *("LLM-VA (released code)", "LLM-VA", "LLM-VA (long)", "LLM-VA (guarded)", "LLM-VA-R"),
    ]
    assert order_methods(reversed([*BASELINES, *LOOPS])) == [*BASELINES, *LOOPS]
    assert [method for method in shuffled if is_variant(method)] == [
        "AlphaSteer+ (benign)",
        "Alpha (fast)",
        "LLM-VA (long)",
    ]


def test_seeds_are_added_to_organisms_alone():
    slugs = ["tiny-llama", "Qwen2.5-3B", "tiny-qwen2-s4"]
    assert add_seeds(slugs, 1) == slugs
    assert add_seeds(slugs, 3) == ["tiny-llama", "tiny-llama-s1", "tiny-llama-s2", "Qwen2.5-3B", "tiny-qwen2-s4"]
    assert add_seeds(["tiny-llama", "tiny-llama-s1"], 2) == ["tiny-llama", "tiny-llama-s1"]
    with pytest.raises(InputError, match="seeds: is 0"):
        add_seeds(slugs, 0)
    assert name_models(add_seeds(slugs, 2))["tiny-llama-s1"] == "tiny-llama"
    assert name_models(slugs)["tiny-qwen2-s4"] == "tiny-qwen2-s4"


def test_what_a_mean_is_over_is_said_in_words():
    seeds = count_seeds(["persona-llama", "persona-llama-s1", "persona-qwen3", "persona-qwen3-s1"])
    assert describe_runs(seeds) == "two persona organisms with two seeds each"
    assert describe_runs({"tiny-llama": 1, "tiny-qwen2": 1}) == "two organisms"
    assert describe_runs({"tiny-llama": 2, "tiny-qwen2": 1}) == "two organisms, three runs in all"
    assert describe_runs({"smol": 3}) == "three seeds of one model"
    assert describe_runs({"smol": 1}) == "one run of one model"


@pytest.mark.parametrize("path", sorted((ROOT / "tables").glob("*.md")), ids=lambda path: path.stem)
def test_no_tracked_table_miscounts_or_claims_an_interval_that_it_has_not(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(?:1|one) (?:runs|models|seeds|studies|organisms)\b", text) and "[–, –]" not in text
    captions = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    ours = captions.partition(", the paper's.**")[0]
    if path.stem.endswith("_smol"):
        assert not re.search(r"\b(?:over|lowest and the highest) models?\b", ours)
    assert not re.search(r"\bover \d+ models\b", ours)
    if path.stem == "runtime":
        assert ours.count("eans over three persona organisms with two seeds each") == 4 and "(tiny-…)" not in ours


# Tables 2 and 4


def test_table2_has_exactly_its_columns_and_full_precision():
    write_results("tiny-llama", "table2", long_results())
    frame = pandas.read_csv(build.save_table("table2", ["tiny-llama"])[0])
    assert list(frame.columns) == ["model", "method", *METRICS, "n", *BOUNDS, "mcnemar_p", *SPREADS]
    assert frame["model"].to_list() == ["tiny-llama"] * 3 + ["mean"] * 3
    assert frame["method"].to_list() == ["Original", "VectorSteer", "LLM-VA"] * 2
    for number, method in enumerate(frame["method"]):
        assert frame.loc[number, METRICS].to_list() == pytest.approx(VALUES[method], rel=1e-15)
        assert frame.loc[number, "nq_orr_high"] == pytest.approx(VALUES[method][3] + 0.1)
        assert frame.loc[number, ["f1_worst", "strict_f1_worst"]].to_list() == [VALUES[method][4], VALUES[method][7]]
    assert frame["n"].to_list() == [200] * 6
    assert frame["seeds"].to_list() == [1] * 6
    assert frame[["f1_sd", "strict_f1_sd"]].isna().all(axis=None)
    assert frame["mcnemar_p"].isna().to_list() == [False, False, True] * 2
    assert frame.loc[0, "mcnemar_p"] == mcnemar([[0, 60], [10, 0]], exact=True).pvalue


def test_seeds_of_a_model_become_their_mean_spread_and_worst():
    for seed, shift in enumerate((0.0, 0.06, -0.03)):
        write_results(f"tiny-llama-s{seed}" if seed else "tiny-llama", "table2", long_results(shift=shift))
    frame = build.build_table("table2", ["tiny-llama", "tiny-llama-s1", "tiny-llama-s2"])
    row = frame.set_index(["model", "method"]).loc[("tiny-llama", "LLM-VA")]
    assert row["f1"] == pytest.approx(0.8272)
    # Deviations -0.01, 0.05, -0.04: SD = sqrt(0.0042 / 2).
    assert row["f1_sd"] == pytest.approx(numpy.sqrt(0.0021))
    assert (row["f1_worst"], row["strict_f1_worst"]) == pytest.approx((0.7872, 0.78))
    assert (row["n"], row["seeds"]) == (600, 3)
    # The recorded bounds are a tenth away; those over seeds are of the runs' own counts.
    assert row["nq_orr_low"] < row["nq_orr"] < row["nq_orr_high"]
    assert row["nq_orr_low"] == pytest.approx(0.05, abs=0.02)
    assert row["seval_attack_asr_high"] - row["seval_attack_asr_low"] == pytest.approx(0.2, abs=0.05)


def test_the_test_over_seeds_pools_the_discordant_prompts():
    write_results("tiny-llama", "table2", long_results(apart={"Original": (9, 1), "VectorSteer": (4, 7)}))
    write_results("tiny-llama-s1", "table2", long_results(apart={"Original": (3, 6), "VectorSteer": (0, 0)}))
    frame = build.build_table("table2", ["tiny-llama", "tiny-llama-s1"]).set_index(["model", "method"])
    for model in ("tiny-llama", "mean"):
        for method, (first, second) in {"Original": (12, 7), "VectorSteer": (4, 7)}.items():
            expected = mcnemar([[100, first], [second, 40]], exact=True).pvalue
            assert frame.loc[(model, method), "mcnemar_p"] == pytest.approx(expected)
        assert numpy.isnan(frame.loc[(model, "LLM-VA"), "mcnemar_p"])


def test_the_mean_gives_every_model_the_same_weight():
    for slug, shift in {"tiny-llama": 0.0, "tiny-llama-s1": 0.06, "tiny-qwen2": -0.04}.items():
        write_results(slug, "table2", long_results(shift=shift))
    frame = build.build_table("table2", ["tiny-llama", "tiny-llama-s1", "tiny-qwen2"])
    assert list(frame["model"].unique()) == ["tiny-llama", "tiny-qwen2", "mean"]
    # Three runs, each better than its original: the least that an exact paired test of three can give.
    by_run = frame.set_index(["model", "method"])["run_p"]
    assert by_run[("mean", "Original")] == 0.25 and numpy.isnan(by_run[("tiny-qwen2", "Original")])
    assert numpy.isnan(by_run[("mean", "LLM-VA")])
    rows = frame[frame["method"] == "LLM-VA"].set_index("model")
    assert rows.loc["mean", "f1"] == pytest.approx(0.8172 + (0.03 - 0.04) / 2)
    assert rows.loc["mean", "f1_worst"] == pytest.approx(0.7772)
    assert rows["seeds"].to_list() == [2, 1, 3]
    assert rows["n"].to_list() == [400, 200, 600]
    # A model with one run keeps the recorded bounds.
    assert rows.loc["tiny-qwen2", "f1_low"] == pytest.approx(0.6772)
    for metric in METRICS[:4]:
        assert rows.loc["mean", f"{metric}_low"] <= rows.loc["mean", metric] <= rows.loc["mean", f"{metric}_high"]


def test_one_models_mean_is_its_own_row():
    for slug, shift in {"tiny-llama": 0.0, "tiny-llama-s1": 0.06}.items():
        write_results(slug, "table2", long_results(shift=shift))
    frame = build.build_table("table2", ["tiny-llama", "tiny-llama-s1"])
    rows = [
        frame[frame["model"] == name].drop(columns="model").reset_index(drop=True) for name in ("tiny-llama", "mean")
    ]
    pandas.testing.assert_frame_equal(*rows)


def test_strict_f1_is_resampled_from_strict_errors():
    frame = long_results()
    frame.loc[frame["metric"] == "strict_error", "value"] = 1.0
    for slug in ("tiny-llama", "tiny-llama-s1"):
        write_results(slug, "table2", frame)
    row = build.build_table("table2", ["tiny-llama", "tiny-llama-s1"]).iloc[0]
    assert row["strict_f1_low"] == row["strict_f1_high"] == 0.0
    assert row["f1_low"] > 0.4


def test_every_run_has_a_row_of_its_own():
    for slug, shift in {"tiny-llama": 0.0, "tiny-llama-s1": 0.06}.items():
        write_results(slug, "table2", long_results(shift=shift))
    save("table2", "tiny-llama", "tiny-llama-s1")
    frame = pandas.read_csv(paths.TABLES / "table2_seeds.csv")
    assert list(frame.columns) == ["model", "method", *METRICS, "n", *BOUNDS, "mcnemar_p"]
    assert frame["model"].to_list() == ["tiny-llama"] * 3 + ["tiny-llama-s1"] * 3
    assert frame["f1"].to_list() == pytest.approx([0.5741, 0.51, 0.8172, 0.6341, 0.57, 0.8772])
    assert frame["n"].to_list() == [200] * 6


def test_table4_has_its_five_sets():
    values = {method: (0.1, 0.2, 0.05, *VALUES[method][2:4], *VALUES[method][4:]) for method in VALUES}
    write_results("tiny-llama", "table4", long_results(item="table4", values=values))
    files = save("table4", "tiny-llama")
    assert set(files) == {"table4.csv", "table4_seeds.csv", "table4.tex", "table4.md"}
    columns = files["table4.csv"].splitlines()[0].split(",")
    assert columns[2:7] == ["advbench_asr", "orbench_toxic_asr", "xstest_toxic_asr", "orbench_orr", "xstest_orr"]
    assert columns == [*columns_of(RATES["table4"]), *SPREADS]
    ours, papers = blocks_of(files["table4.md"])
    assert ours[1][1][:7] == ["tiny-llama", "Original", "10.0", "20.0", "5.0", "62.0", "14.0"]
    assert papers[1][-1][0] == "LLM-VA"
    assert papers[1][-1][-1] == f"**{paper.read_headlines()['transfer_mean_f1_llm_va']:.3f}**"


def test_variants_are_in_the_csv_and_not_in_print():
    methods = ["Original", "VectorSteer", "VectorSteer (reading vector)", "LLM-VA (released code)", "LLM-VA"]
    write_results("tiny-llama", "table2", methods_results(methods))
    files = save("table2", "tiny-llama")
    for name in ("table2.csv", "table2_seeds.csv"):
        assert list(pandas.read_csv(paths.TABLES / name)["method"].unique()) == methods
    assert "reading vector" not in files["table2.md"] + files["table2.tex"]
    printed = [row[1] for row in blocks_of(files["table2.md"])[0][1][1:]]
    assert printed == ["Original", "VectorSteer", "LLM-VA (released code)", "LLM-VA"]


def test_markdown_prints_percentages_scores_with_intervals_and_bold_bests():
    write_results("tiny-llama", "table2", long_results())
    (caption, (heading, original, steered, aligned)), papers = blocks_of(save("table2", "tiny-llama")["table2.md"])
    assert caption.startswith("**Table 2.** Model by model.")
    assert heading[2:7] == ["ASR attack ↓", "ASR risk ↓", "ORR ORFuzz ↓", "ORR NQ ↓", "F1 ↑"]
    assert original[:3] == ["tiny-llama", "Original", "80.0"]
    assert steered[2] == "**20.0**"
    assert aligned[4] == "**34.0**"
    assert aligned[6] == "**0.817 [0.717, 0.917]**"
    assert original[8] == "**0.0**"
    assert (original[-1], steered[-1], aligned[-2:]) == ("< 0.001", "0.453", ["200", "–"])


def test_rules_that_read_no_prompt_are_never_bold():
    values = {"Answer everything": (1.0, 1.0, 0.0, 0.0, 0.667, 0.5, 0.0, 0.667), **VALUES}
    write_results(
        "tiny-llama", "table2", long_results(values=values, apart={**DISCORDANT, "Answer everything": (9, 0)})
    )
    rows = blocks_of(save("table2", "tiny-llama")["table2.md"])[0][1]
    assert [row[1] for row in rows[1:]] == ["Original", "Answer everything", "VectorSteer", "LLM-VA"]
    assert rows[2][4:6] == ["0.0", "0.0"]
    assert rows[4][4:6] == ["**34.0**", "**10.0**"]


def test_the_means_stand_first_and_the_paper_last():
    for slug, shift in {"tiny-llama": 0.0, "tiny-llama-s1": 0.06, "tiny-qwen2": -0.01}.items():
        write_results(slug, "table2", long_results(shift=shift))
    files = save("table2", "tiny-llama", "tiny-llama-s1", "tiny-qwen2")
    means, models, papers = blocks_of(files["table2.md"])
    assert means[0].startswith("**Table 2.** Means over two organisms, three runs in all.")
    assert [row[0] for row in means[1]] == ["Method", "Original", "VectorSteer", "LLM-VA"]
    assert means[1][0][-1] == "Runs" and means[1][1][-1] == "3"
    assert [row[0] for row in models[1][1:]] == ["tiny-llama"] * 3 + ["tiny-qwen2"] * 3
    assert models[1][3][7] == "0.042 / 0.817"
    assert models[1][6][7] == "– / 0.807"
    assert "model organisms" in means[0] and "model organisms" in models[0]
    assert "model organisms" not in papers[0] and "real models" in papers[0] and "none of them was run" in papers[0]
    assert [row[0] for row in papers[1][1:]] == [
        *("Original", "VectorSteer", "AlphaSteer", "AlphaSteer+", "SCANS", "LLM-VA")
    ]
    assert (papers[1][1][-1], papers[1][-1][-1]) == ("0.563", "**0.768**")
    assert "pools their prompts" in files["table2.md"]
    assert files["table2.md"].index("pools their prompts") < files["table2.md"].index("none of them was run")


def test_a_tie_of_all_methods_is_not_bold():
    frame = long_results()
    frame.loc[frame["metric"] == "degenerate", "value"] = 0.0
    write_results("tiny-llama", "table2", frame)
    assert [row[8] for row in blocks_of(save("table2", "tiny-llama")["table2.md"])[0][1][1:]] == ["0.0", "0.0", "0.0"]


def test_latex_has_rules_bold_and_nothing_unescaped():
    for slug in ("tiny-llama", "tiny-qwen2"):
        write_results(slug, "table2", long_results())
    text = save("table2", "tiny-llama", "tiny-qwen2")["table2.tex"]
    for piece in (r"\toprule", r"\bottomrule", r"\textbf{0.817 [0.717, 0.917]}", "organisms", "real models"):
        assert piece in text
    for label in ("table2", "table2_mean", "table2_paper"):
        assert text.count(rf"\label{{tab:{label}}}") == 1
    assert text.count(r"\begin{longtable}") == text.count(r"\end{longtable}") == 1
    assert text.count(r"\caption") == 3
    # What is wider than a line is shrunk; braces close.
    assert text.count(r"\resizebox") == text.count(r"\end{tabular}}") == 2 and r"\end{longtable}" + "\n}\n" in text
    body = re.sub(r"\\label\{.*?\}", "", text.split("\n", 1)[1])
    assert not re.search(r"(?<!\\)[%_]", body)
    assert body.isascii()


def test_organisms_never_stand_beside_real_models():
    for slug in ("tiny-qwen2", "tiny-llama", "Qwen2.5-3B"):
        write_results(slug, "table2", long_results())
    with pytest.raises(InputError, match="models of different kinds; build a table of each"):
        build.build_table("table2", ["tiny-qwen2", "Qwen2.5-3B"])
    files = save("table2", "tiny-qwen2", "Qwen2.5-3B", "tiny-llama")
    real = {name: text for name, text in files.items() if "organisms" not in name}
    assert set(real) == {"table2.csv", "table2_seeds.csv", "table2.md", "table2.tex"}
    assert set(files) - set(real) == {f"table2_organisms{end}" for end in (".csv", "_seeds.csv", ".md", ".tex")}
    assert not any("tiny-" in text or "organisms" in text for text in real.values())
    assert not any("Qwen" in text for name, text in files.items() if name not in real)
    frame = pandas.read_csv(paths.TABLES / "table2_organisms.csv")
    assert list(frame["model"].unique()) == ["tiny-qwen2", "tiny-llama", "mean"]
    assert blocks_of(files["table2_organisms.md"])[0][0].count("model organisms") == 1


def test_a_missing_model_fails_the_table():
    write_results("tiny-llama", "table2", long_results())
    with pytest.raises(InputError, match=r"tiny-qwen2/table2.csv: missing; run `make table2 MODELS=tiny-qwen2`"):
        build.build_table("table2", ["tiny-llama", "tiny-qwen2"])


def test_a_missing_method_or_metric_fails_the_table():
    whole = long_results()
    write_results("tiny-llama", "table2", whole)
    write_results("tiny-qwen2", "table2", whole[whole["method"] != "LLM-VA"])
    with pytest.raises(InputError, match="tiny-qwen2: no .* of LLM-VA .*; run `make table2 MODELS=tiny-qwen2` again"):
        build.build_table("table2", ["tiny-llama", "tiny-qwen2"])
    for metric in ("nq_orr_low", "strict_error", "method_only", "f1"):
        write_results("tiny-qwen2", "table2", whole[whole["metric"] != metric])
        with pytest.raises(InputError, match=f"tiny-qwen2: no {metric} of"):
            build.build_table("table2", ["tiny-qwen2"])
    write_results("tiny-qwen2", "table2", pandas.concat([whole, whole]))
    with pytest.raises(InputError, match="tiny-qwen2: .* stands twice"):
        build.build_table("table2", ["tiny-qwen2"])
    write_results("tiny-qwen2", "table2", long_results(shift=0.2))
    with pytest.raises(InputError, match="tiny-qwen2: orfuzzset_orr of VectorSteer: is 1.1, which is no share"):
        build.build_table("table2", ["tiny-qwen2"])


# Table 1


def table1_of(orr: dict[str, float], asr: dict[str, float], needs: dict, slugs=("tiny-llama", "tiny-qwen2")):
    values = {method: (asr[method], asr[method], orr[method], orr[method], 0.5, 0.5, 0.0, 0.5) for method in orr}
    for slug in slugs:
        results = long_results(values=values, apart={name: (3, 3) for name in values if name != "LLM-VA"})
        write_results(slug, "table2", results)
        write_results(slug, "table1", needs_results(needs))
    return pandas.read_csv(build.save_table("table1", slugs)[0]).set_index("method")


def test_table1_tells_what_a_method_needs_and_mitigates():
    orr = {"Original": 0.5, "VectorSteer": 0.8, "Fine-tuning": 0.46, "LLM-VA": 0.1, "Answer everything": 0.5}
    asr = {"Original": 0.5, "VectorSteer": 0.1, "Fine-tuning": 0.54, "LLM-VA": 0.2, "Answer everything": 1.0}
    needs = {"Original": (0, 0), "VectorSteer": (0, 1), "Fine-tuning": (1, 0), "LLM-VA": (0, 0)}
    frame = table1_of(orr, asr, {**needs, "Answer everything": (0, 1)})
    claims = ["without_finetuning", "without_structure_change", "over_refusal_mitigated", "jailbreak_mitigated"]
    changes = [f"{failure}_change{end}" for failure in ("orr", "asr") for end in ("", "_low", "_high")]
    assert list(frame.columns) == [*claims, *changes, "models", "runs"]
    assert {method: list(row) for method, row in frame[claims].T.items()} == {
        "Answer everything": ["yes", "no", "unclear", "no"],
        "VectorSteer": ["yes", "no", "no", "yes"],
        "Fine-tuning": ["no", "yes", "unclear", "unclear"],
        "LLM-VA": ["yes", "yes", "yes", "yes"],
    }
    assert frame["orr_change"].to_list() == pytest.approx([0.0, 0.3, -0.04, -0.4])
    assert frame["asr_change"].to_list() == pytest.approx([0.5, -0.4, 0.04, -0.3])
    # Two independent means of 400 prompts each: the variance is p(1 - p) / 400 of either.
    half = 1.96 * numpy.sqrt((0.1 * 0.9 + 0.5 * 0.5) / 400) * numpy.sqrt(2)
    width = frame.loc["LLM-VA", "orr_change_high"] - frame.loc["LLM-VA", "orr_change_low"]
    assert width == pytest.approx(2 * half, rel=0.15)


def test_table1_prints_marks_and_the_papers_claims_apart():
    rates = {"Original": 0.5, "VectorSteer": 0.46, "VectorSteer (far)": 0.5, "LLM-VA": 0.1}
    needs = {"VectorSteer": (0, 1), "VectorSteer (far)": (0, 1), "LLM-VA": (0, 0)}
    assert "VectorSteer (far)" in table1_of(rates, rates, needs).index
    (caption, rows), (papers_caption, papers) = blocks_of((paths.TABLES / "table1.md").read_text())
    assert [row[:5] for row in rows[1:]] == [
        ["VectorSteer", "✓", "✗", "unclear", "unclear"],
        ["LLM-VA", "✓", "✓", "✓", "✓"],
    ]
    assert re.fullmatch(r"−40\.0 \[−4\d\.\d, −3\d\.\d\]", rows[2][5])
    assert "model organisms" in caption and "model organisms" not in papers_caption
    assert {row[0]: row[1:] for row in papers[1:]} == {
        "VectorSteer": ["✓", "✗", "✗", "✓"],
        "AlphaSteer": ["✓", "✗", "✗", "✓"],
        "SCANS": ["✓", "✗", "✓", "✓"],
        "CAST": ["✓", "✗", "✓", "✓"],
        "Fine-tuning": ["✗", "✓", "✓", "✓"],
        "LLM-VA": ["✓", "✓", "✓", "✓"],
    }
    assert (paths.TABLES / "table1.tex").read_text().isascii()


def test_table1_refuses_needs_that_contradict_or_have_no_results():
    rates = {"Original": 0.5, "LLM-VA": 0.1}
    table1_of(rates, rates, {"LLM-VA": (0, 0)})
    write_results("tiny-qwen2", "table1", needs_results({"LLM-VA": (0, 1)}))
    with pytest.raises(InputError, match="table1: hooks of LLM-VA: is 0, 1; it must be 0 or 1"):
        build.build_table("table1", ["tiny-llama", "tiny-qwen2"])
    write_results("tiny-llama", "table1", needs_results({"LLM-VA": (0, 0), "CAST": (0, 1)}))
    with pytest.raises(InputError, match="table2: no results of CAST"):
        build.build_table("table1", ["tiny-llama"])


# Table 3


def test_table3_lists_the_selected_sublayers_and_the_papers_below():
    for slug, l_select in {"tiny-llama": 6, "tiny-qwen2": 8, "tiny-qwen2-s1": 9}.items():
        write_results(slug, "table3", table3_results(l_select))
    frame = build.build_table("table3", ["tiny-llama", "tiny-qwen2", "tiny-qwen2-s1"])
    assert list(frame.columns) == ["model", "l_select", "sublayers", "share"]
    assert frame["l_select"].to_list() == [6, 8.5]
    files = save("table3", "tiny-llama", "tiny-qwen2", "tiny-qwen2-s1")
    ours, papers = blocks_of(files["table3.md"])
    assert ours[1][2] == ["tiny-qwen2", "8.5", "12", "70.8"]
    assert papers[1][5] == ["Phi-4-4B", "48", "60", "64", "75.0", "93.8"]
    assert set(files) == {"table3.csv", "table3_paper.csv", "table3.md", "table3.tex"}


def test_the_papers_sublayers_hold_every_l_select():
    table = paper.share_of_sublayers()
    assert len(table) == paper.MODELS
    assert table[["share_printed", "share_code"]].gt(0).all(axis=None)
    assert table[["share_printed", "share_code"]].le(1).all(axis=None)
    assert table.set_index("model").loc["Qwen2.5-7B"].to_list() == [36, 54, 56, 36 / 56, 54 / 56]


# Utility


def test_utility_tells_what_is_kept():
    original, aligned = [0.8, 0.5, 0.5, 0.4, 1.0, 0.0], [0.4, 0.5, 0.6, 0.4, 0.9, 0.5]
    write_results("tiny-llama", "utility", utility_results(Original=original, LLM_VA=aligned))
    again = [0.4, 0.5, 0.6, 0.4, 0.9, 0.6]
    write_results("tiny-llama-s1", "utility", utility_results(Original=[0.4, 0.5, 0.5, 0.4, 1.0, 0.8], LLM_VA=again))
    write_results("tiny-qwen2", "utility", utility_results(Original=[0.5] * 6, LLM_VA=[0.25] * 6))
    slugs = ["tiny-llama", "tiny-llama-s1", "tiny-qwen2"]
    frame = build.build_table("utility", slugs)
    assert list(frame.columns) == ["model", "method", "task", "metric", "value", "original", "kept"]
    assert len(frame) == 3 * 2 * 7
    assert list(frame["model"].unique()) == ["tiny-llama", "tiny-qwen2", "mean"]
    assert frame["task"].to_list()[:7] == ["cola", "mnli", "rte", "mrpc", "sst", "gsm", "mean"]
    rows = frame.set_index(["model", "method", "task"])
    # The mean of 0.4/0.8 and 0.4/0.4, not the quotient of the means.
    assert rows.loc[("tiny-llama", "LLM-VA", "cola")].to_list() == ["accuracy", 0.4, pytest.approx(0.6), 0.75]
    assert rows.loc[("tiny-llama", "LLM-VA", "mrpc"), "metric"] == "f1"
    # The first seed's original has nothing on GSM, so only the second counts.
    assert rows.loc[("tiny-llama", "LLM-VA", "gsm"), "kept"] == pytest.approx(0.75)
    mean = (0.75 + 1 + 1.2 + 1 + 0.9 + 0.75) / 6
    assert rows.loc[("tiny-llama", "LLM-VA", "mean"), "kept"] == pytest.approx(mean)
    assert rows.loc[("mean", "LLM-VA", "mean"), "kept"] == pytest.approx((mean + 0.5) / 2)
    assert rows.loc[("tiny-llama", "LLM-VA", "mean"), ["metric", "value", "original"]].isna().all()
    ours, papers = blocks_of(save("utility", *slugs)["utility.md"])
    assert ours[1][0] == ["Method", "CoLA", "MNLI", "RTE", "MRPC", "SST-2", "GSM", "Mean", "Mean: worst run"]
    assert ours[1][2] == ["LLM-VA", "62.5", "75.0", "85.0", "75.0", "70.0", "62.5", "71.7", "50.0"]
    runs = pandas.read_csv(paths.TABLES / "utility_seeds.csv").set_index(["model", "method", "task"])
    assert runs.loc[("tiny-llama-s1", "LLM-VA", "mean"), "kept"] == pytest.approx((1 + 1 + 1.2 + 1 + 0.9 + 0.75) / 6)
    assert papers[1][-1] == ["LLM-VA", "95.9"]


def test_what_an_original_without_any_right_answer_keeps_is_undefined():
    write_results("tiny-llama", "utility", utility_results(Original=[0.5] * 5 + [0.0], LLM_VA=[0.5] * 6))
    rows = build.build_table("utility", ["tiny-llama"]).set_index(["model", "method", "task"])
    assert numpy.isnan(rows.loc[("tiny-llama", "LLM-VA", "gsm"), "kept"])
    assert rows.loc[("tiny-llama", "LLM-VA", "mean"), "kept"] == 1


def test_utility_refuses_gaps_and_two_metrics_of_a_task():
    whole = utility_results(Original=[0.5] * 6, LLM_VA=[0.5] * 6)
    write_results("tiny-llama", "utility", whole[(whole["dataset"] != "rte") | (whole["method"] != "LLM-VA")])
    with pytest.raises(InputError, match="tiny-llama: no value of LLM-VA on rte; run `make utility MODELS=tiny-llama`"):
        build.build_table("utility", ["tiny-llama"])
    write_results("tiny-llama", "utility", whole[whole["method"] != "Original"])
    with pytest.raises(InputError, match="utility: no rows of Original"):
        build.build_table("utility", ["tiny-llama"])
    write_results("tiny-llama", "utility", pandas.concat([whole, whole.assign(metric="f1")[:1]]))
    with pytest.raises(InputError, match="utility: cola: has accuracy and f1"):
        build.build_table("utility", ["tiny-llama"])


def test_the_papers_means_are_its_headlines():
    means = paper.average_paper_values("table2").set_index("method")["f1"]
    assert means["LLM-VA"] == pytest.approx(paper.read_headlines()["llm_va_mean_f1"], abs=1e-4)
    assert means["Original"] == pytest.approx(paper.read_headlines()["original_mean_f1"], abs=1e-4)
    assert means["AlphaSteer"] == pytest.approx(paper.read_headlines()["best_baseline_mean_f1_alphasteer"], abs=1e-4)
    assert set(RATES["table4"]) < set(paper.average_paper_values("table4"))
    for item in ("table2", "table4"):
        assert paper.read_paper_values(item).groupby("method")["model"].nunique().eq(paper.MODELS).all()


# The command and the files


def test_the_command_builds_and_prints(capsys):
    write_results("tiny-llama", "table2", long_results())
    with pytest.raises(SystemExit) as stop:
        build.main(["all", "--models", "tiny-llama"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "model organisms" in printed
    assert "n = 200" in printed
    assert "| LLM-VA" in printed
    names = ["table2.csv", "table2.md", "table2.tex", "table2_seeds.csv"]
    assert sorted(path.name for path in paths.TABLES.iterdir()) == names


def test_the_command_adds_seeds_and_names_a_missing_one(capsys):
    for slug in ("tiny-llama", "tiny-llama-s1"):
        write_results(slug, "table3", table3_results(6 if slug == "tiny-llama" else 9))
    with pytest.raises(SystemExit) as stop:
        build.main(["table3", "--models", "tiny-llama", "--seeds", "2"])
    assert stop.value.code == 0
    assert pandas.read_csv(paths.TABLES / "table3.csv")["l_select"].to_list() == [7.5]
    with pytest.raises(SystemExit) as stop:
        build.main(["table3", "--models", "tiny-llama", "--seeds", "3"])
    assert stop.value.code == 2
    assert "run `make table3 MODELS=tiny-llama-s2`" in capsys.readouterr().err


@pytest.mark.parametrize("item", ["table9", "all"])
def test_the_command_names_what_it_does_not_know(item, capsys):
    with pytest.raises(SystemExit) as stop:
        build.main([item, "--models", "tiny-llama"])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert ("known are table1, table2" if item == "table9" else "no table's results for tiny-llama") in message


def test_building_twice_gives_the_same_bytes_and_touches_nothing():
    def write() -> dict:
        for slug in ("tiny-llama", "tiny-llama-s1"):
            write_results(slug, "table2", long_results())
        files = build.save_table("table2", ["tiny-llama", "tiny-llama-s1"])
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    first = write()
    assert write() == first
    again = {name: content for name, (content, _) in first.items()}
    for path in paths.TABLES.iterdir():
        path.unlink()
    assert {name: content for name, (content, _) in write().items()} == again


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
