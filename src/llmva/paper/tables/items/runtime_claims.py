"""What the second paper claims of run-time steering, and what came out here, with intervals over runs and a verdict."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy
import pandas

from llmva.core.vocabulary import RUNTIME_METHODS
from llmva.paper.names import name_models
from llmva.paper.tables import resampling
from llmva.paper.tables.items.headlines import judge_claim
from llmva.paper.tables.paper import read_paper_values

FIXED = "SwFC"
# The share of the aligned side's coherence below which the paper takes no setting.
COHERENT = 0.9


class Claim(NamedTuple):
    """A claim of the paper: what it says, the values here by run, and the limit on whose one side they are to lie."""

    quantity: str
    text: str
    method: str
    values: pandas.Series
    limit: float = 0.0
    falls: bool = False


def judge_claims(table: pandas.DataFrame, turns: pandas.DataFrame) -> pandas.DataFrame:
    """Return one row per threat, claim and method: the paper's number, ours, interval, verdict.

    The interval is that of a bootstrap over models and their seeds; fewer than six runs have none.

    Parameters
    ----------
    table : DataFrame
        As `build_runtime` returns it.
    turns : DataFrame
        Results of conversations: model, threat, method, position, turn, metric, value.
    """
    papers = read_paper_values("runtime_claims").set_index(["quantity", "threat", "method"])["value"]
    rows = []
    for threat in table["threat"].unique():
        for claim in _claims(table[table["threat"] == threat], turns[turns["threat"] == threat]):
            runs = claim.values.index
            draws = resampling.draw_runs(runs.map(name_models(runs)), "runtime claims")
            few = len(runs) < resampling.MIN_RUNS
            low, high = (numpy.nan,) * 2 if few else draws.interval(claim.values.to_numpy()[draws.runs])[:2]
            paper = papers.get((claim.quantity, threat, claim.method), numpy.nan)
            verdict = judge_claim(low, high, claim.limit, claim.falls)
            here = draws.mean(claim.values)
            rows.append((threat, claim.text, claim.method, paper, here, low, high, verdict, len(runs)))
    columns = ["threat", "claim", "method", "paper", "here", "here_low", "here_high", "verdict", "runs"]
    return pandas.DataFrame(rows, columns=columns)


def _claims(table: pandas.DataFrame, turns: pandas.DataFrame) -> Iterator[Claim]:
    trait, alone = _by_run(table, "trait"), _by_run(table, "trait", "response")
    malicious = table[table["method"] == "malicious"].set_index("model")["trait"]
    coherence, kept, shift = (_by_run(table, name) for name in ("coherence", "kept", "shift"))
    repeated, last = turns[turns["metric"] == "within"], turns["turn"].max()
    first, latest = (_by_run(repeated[repeated["turn"] == turn], "value") for turn in (1, last))
    for method in RUNTIME_METHODS:
        yield Claim("recovered", "trait, above the malicious side's", method, trait[method] - malicious)
    for method in RUNTIME_METHODS:
        text = "trait with all tokens steered, above that with the reply's alone"
        yield Claim("beyond_response", text, method, trait[method] - alone[method])
    for method in RUNTIME_METHODS:
        text = f"coherence, at least {COHERENT} of the aligned side's"
        yield Claim("coherence", text, method, coherence[method], limit=COHERENT)
    text = f"repetition in turn {last} of a conversation, above that in turn 1"
    yield Claim("rise", text, FIXED, latest[FIXED] - first[FIXED])
    gated = [method for method in RUNTIME_METHODS if method != FIXED]
    for quantity, text, values, falls in (
        ("ahead", f"coherence above that of {FIXED}", coherence, False),
        ("repetition", f"repetition in turn {last}, less than that of {FIXED}", latest, True),
        ("kept", f"share of neutral tasks kept, above that of {FIXED}", kept, False),
        ("shift", f"mean change of the stream, less than that of {FIXED}", shift, True),
    ):
        for method in gated:
            yield Claim(quantity, text, method, values[method] - values[FIXED], falls=falls)


def _by_run(rows: pandas.DataFrame, column: str, position: str = "all") -> pandas.DataFrame:
    return rows[rows["position"] == position].pivot(index="model", columns="method", values=column)
