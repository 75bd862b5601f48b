"""The second paper's claims: planted values by run give the differences, intervals and verdicts that they must."""

import numpy
import pandas
import pytest

from llmva.paper.tables.items.runtime_claims import judge_claims

RUNS = [f"persona-{family}{seed}" for family in ("llama", "qwen3", "gemma2") for seed in ("", "-s1")]
METHODS = ("SwFC", "StTP", "StMP")
# Of all tokens; the response's trait is .1 throughout.
PLANTED = {
    "trait": {"SwFC": 0.5, "StTP": 0.9, "StMP": 0.95},
    "coherence": {"SwFC": 0.3, "StTP": 0.9, "StMP": 0.97},
    "kept": {"SwFC": 0.5, "StTP": 0.8, "StMP": 0.5},
    "shift": {"SwFC": 40.0, "StTP": 15.0, "StMP": 50.0},
}
NINTH = {"SwFC": 0.3, "StTP": 0.0, "StMP": 0.4}


def tables(runs=RUNS, noise=0.01):
    rows, turns = [], []
    for number, run in enumerate(runs):
        wobble = noise * (-1) ** number
        rows.append((run, "malicious", "", {name: wobble for name in PLANTED}))
        for method in METHODS:
            values = {name: planted[method] + wobble for name, planted in PLANTED.items()}
            rows += [(run, method, "all", values), (run, method, "response", {**values, "trait": 0.1})]
            turns += [(run, method, turn, value) for turn, value in ((1, 0.0), (9, NINTH[method] + wobble))]
    table = pandas.DataFrame([(run, method, position, *values.values()) for run, method, position, values in rows])
    table.columns = ["model", "method", "position", *PLANTED]
    said = pandas.DataFrame(turns, columns=["model", "method", "turn", "value"]).assign(position="all", metric="within")
    return table.assign(threat="dishonesty"), said.assign(threat="dishonesty")


def found(*arguments, **options):
    claims = judge_claims(*tables(*arguments, **options))
    return {(row.claim.split(",")[0].split(" of a")[0], row.method): row for row in claims.itertuples()}


@pytest.mark.parametrize(
    ("claim", "method", "here", "verdict"),
    [
        ("trait", "SwFC", 0.5, "holds"),
        ("trait with all tokens steered", "StMP", 0.85, "holds"),
        ("coherence", "SwFC", 0.3, "does not hold"),
        ("coherence", "StTP", 0.9, "cannot be told"),
        ("coherence", "StMP", 0.97, "holds"),
        ("repetition in turn 9", "SwFC", 0.3, "holds"),
        ("repetition in turn 9", "StTP", -0.3, "holds"),
        ("repetition in turn 9", "StMP", 0.1, "does not hold"),
        ("share of neutral tasks kept", "StTP", 0.3, "holds"),
        ("share of neutral tasks kept", "StMP", 0.0, "cannot be told"),
        ("mean change of the stream", "StTP", -25.0, "holds"),
        ("mean change of the stream", "StMP", 10.0, "does not hold"),
    ],
)
def test_claims_are_judged_by_what_was_planted(claim, method, here, verdict):
    row = found()[claim, method]
    assert (row.here, row.verdict, row.runs) == (pytest.approx(here, abs=0.011), verdict, 6)
    assert row.here_low - 1e-12 <= row.here <= row.here_high + 1e-12


def test_the_papers_numbers_stand_beside_those_of_its_threat():
    claims = found()
    assert claims["trait", "StTP"].paper == 0.53 and claims["trait with all tokens steered", "StMP"].paper == 0.20
    assert numpy.isnan(claims["coherence", "StTP"].paper)


def test_few_runs_have_no_interval_and_no_verdict():
    rows = found(RUNS[:5]).values()
    assert all(numpy.isnan(row.here_low) and row.verdict == "cannot be told" for row in rows)
