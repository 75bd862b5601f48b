"""The paper's claims in numbers: each measured as it says, with a verdict that its interval gives."""

import numpy
import pandas
import pytest

from llmva.paper.tables.items import headlines
from llmva.paper.tables.items.headlines import build_headlines, judge_claim
from llmva.paper.tables.paper import read_headlines

RUNS = [f"tiny-{name}{seed}" for name in ("llama", "qwen2") for seed in ("", "-s1", "-s2")]
# By quantity and method, by run: everything is the same in each run, but LLM-VA's utility.
PLANTED = {
    "strict_f1": {"Original": 0.5, "AlphaSteer": 0.6, "Fine-tuning": 0.9, "LLM-VA": 0.75, "LLM-VA-R": 0.9,
                  "Answer everything": 0.95, "LLM-VA (guarded)": 0.99, "AlphaSteer+ (benign)": 0.97},
    "transfer_strict_f1": {"Original": 0.6, "LLM-VA": 0.5, "LLM-VA-R": 0.7},
    "asr": {"Original": 0.5, "LLM-VA": 0.2, "LLM-VA-R": 0.6},
    "orr": {"Original": 0.5, "LLM-VA": 0.5, "LLM-VA-R": 0.1},
    "kept": {"Original": 1.0, "LLM-VA": [0.9, 1.0, 0.9, 1.02, 0.9, 1.01], "LLM-VA-R": 1.0},
    "kept_gsm": {"Original": 1.0, "LLM-VA": 0.8, "LLM-VA-R": 0.95},
}  # fmt: skip


@pytest.fixture
def table(monkeypatch):
    def build(runs=RUNS):
        values = {
            name: pandas.DataFrame(columns, index=pandas.Index(RUNS, name="model")).loc[runs]
            for name, columns in PLANTED.items()
        }
        monkeypatch.setattr(headlines, "_values", lambda _: values)
        return build_headlines({})[""].set_index(["claim", "method"])

    return build


def row_of(table, words, method):
    found = {claim for claim, _ in table.index if words in claim}
    # The shortest: another claim may say more than the words.
    return table.loc[(min(found, key=len), method)]


@pytest.mark.parametrize(
    ("words", "method", "here", "verdict"),
    [
        ("F1 above the original's", "LLM-VA", 0.25, "holds"),
        ("AlphaSteer, the best of the paper's baselines (AlphaSteer there)", "LLM-VA", 0.25, "holds"),
        ("Fine-tuning, the best baseline of all", "LLM-VA", -1 / 6, "does not hold"),
        ("Fine-tuning, the best baseline of all", "LLM-VA-R", 0.0, "cannot be told"),
        ("unseen", "LLM-VA", -0.1, "does not hold"),
        ("ASR", "LLM-VA", -0.3, "holds"),
        ("ASR", "LLM-VA-R", 0.1, "does not hold"),
        ("ORR", "LLM-VA", 0.0, "cannot be told"),
        ("utility kept", "LLM-VA", 0.955, "cannot be told"),
        ("utility kept", "LLM-VA-R", 1.0, "holds"),
        ("arithmetic kept", "LLM-VA", 0.8, "does not hold"),
    ],
)
def test_each_claim_is_measured_and_judged(table, words, method, here, verdict):
    found = row_of(table(), words, method)
    assert found["here"] == pytest.approx(here, abs=1e-12) and found["verdict"] == verdict and found["runs"] == 6
    assert found["here_low"] - 1e-12 <= found["here"] <= found["here_high"] + 1e-12


def test_constants_variants_and_our_own_rows_are_no_baselines(table):
    claims = {claim for claim, _ in table().index}
    assert not any(name in claim for claim in claims for name in ("everything", "guarded", "benign)"))


def test_few_runs_have_no_interval_and_no_verdict(table):
    found = table(RUNS[:5])
    assert found[["here_low", "here_high"]].isna().all(axis=None)
    assert set(found["verdict"]) == {"cannot be told"}


def test_the_papers_numbers_are_its_own(table):
    found = table()
    gain = row_of(found, "the paper's baselines", "LLM-VA")["paper"]
    assert gain == read_headlines()["relative_f1_gain_over_best_baseline"] == 0.1145
    # Of fine-tuning the paper has no number.
    assert numpy.isnan(row_of(found, "of all", "LLM-VA")["paper"])
    assert row_of(found, "ASR", "LLM-VA")["paper"] == -0.185
    assert row_of(found, "utility kept", "LLM-VA")["paper"] == 0.9592


def test_an_interval_that_touches_its_limit_tells_nothing():
    assert judge_claim(0.0, 0.1, 0.0) == judge_claim(-0.1, 0.0, 0.0, falls=True) == "cannot be told"
    assert judge_claim(0.1, 0.2, 0.0, falls=True) == "does not hold"
    assert judge_claim(numpy.nan, numpy.nan, 0.0) == "cannot be told"


def test_a_run_whose_original_cannot_do_a_task_is_left_out(table, monkeypatch):
    planted = PLANTED["kept_gsm"] | {"LLM-VA": [numpy.nan, *[0.8] * 5]}
    monkeypatch.setitem(PLANTED, "kept_gsm", planted)
    found = row_of(table(), "arithmetic kept", "LLM-VA")
    assert found[["here", "here_low", "here_high"]].tolist() == pytest.approx([0.8] * 3)


def test_models_that_do_no_arithmetic_are_not_judged_by_it(table, monkeypatch):
    monkeypatch.delitem(PLANTED, "kept_gsm")
    claims = set(table().index.get_level_values("claim"))
    assert len(claims) == 7 and not any("arithmetic" in claim for claim in claims)


def test_quantities_are_read_from_the_three_tables_results(monkeypatch):
    monkeypatch.undo()
    rates = {"seval_attack_asr": 0.2, "seval_risk_asr": 0.4, "orfuzzset_orr": 0.1, "nq_orr": 0.3}
    runs = pandas.DataFrame(
        {f"strict.{name}": [rate] for name, rate in rates.items()}
        | {f"n.{name}": [count] for name, count in zip(rates, (50, 150, 80, 20), strict=True)}
    )
    # 10 + 60 of 200 toxic prompts, 8 + 6 of 100 benign ones.
    assert headlines._pooled(runs, "asr").tolist() == pytest.approx([0.35])
    assert headlines._pooled(runs, "orr").tolist() == pytest.approx([0.14])
