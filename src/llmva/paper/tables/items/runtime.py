"""Run-time steering: every method at every position against every threat, with its controls, one row a model."""

import pandas

from llmva.core.errors import InputError
from llmva.core.results import remake
from llmva.core.vocabulary import RUNTIME_METHODS
from llmva.paper.names import MEAN, count_seeds, describe_runs
from llmva.paper.tables.items.runtime_claims import judge_claims
from llmva.paper.tables.layout import WORDS, Block, Frames, Table, describe_intervals, read_columns

KEYS = ["model", "threat", "method", "position", "layer", "alpha"]
# Columns of the table and the metrics of the results that they hold.
MEASURES = {
    "trait": "trait",
    "trait_low": "trait_low",
    "trait_high": "trait_high",
    "coherence": "coherence",
    "repetition": "repetition",
    "kept": "kept",
    "shift": "shift_malicious",
    "gated_malicious": "moved_malicious",
    "gated_aligned": "moved_aligned",
    "gated_neutral": "moved_neutral",
}
# What the unsteered sides have none of.
OF_STEERING = ("kept", "shift", "gated_malicious", "gated_aligned", "gated_neutral")


def build_runtime(results: Frames) -> Frames:
    """Return one row per model, threat, method and position; layer and alpha are those that validation chose.

    `claims` has what the paper says of them; see `judge_claims`.
    """
    rows = results["runtime"]
    # A pivot leaves out rows whose keys are missing.
    keyed = rows.assign(
        layer=rows["layer"].fillna(-1), alpha=rows["alpha"].fillna(-1), position=rows["position"].fillna("")
    )
    # Tasks and texts have an n of their own, in the results.
    n = keyed[keyed["metric"] == "trait"].set_index(KEYS)["n"]
    wide = keyed.pivot(index=KEYS, columns="metric", values="value").join(n).reset_index()
    for name, metric in MEASURES.items():
        if metric not in wide or (wide[metric].isna().any() and name not in OF_STEERING):
            raise InputError(f"results of runtime: {metric} is missing; run {remake('runtime', rows['model'].iloc[0])}")
    table = wide[KEYS].assign(**{name: wide[metric] for name, metric in MEASURES.items()}, n=wide["n"])
    table = table.assign(layer=table["layer"].where(table["layer"] > 0), alpha=table["alpha"].where(table["layer"] > 0))
    order = pandas.MultiIndex.from_frame(table[KEYS[:4]]).map(_rank(rows))
    table = table.iloc[order.argsort(kind="stable")].reset_index(drop=True)
    return {"": table, "claims": judge_claims(table, results["runtime_turns"])}


def _rank(rows: pandas.DataFrame):
    """Return the place of a row in the table: models as they were named, sides first, methods with their controls."""
    models, methods = list(rows["model"].unique()), ["aligned", "malicious", *RUNTIME_METHODS]

    def rank(key: tuple) -> tuple:
        model, threat, method, position = key
        plain, _, control = method.partition(" (")
        return models.index(model), threat, methods.index(plain), control, position

    places = {key: rank(key) for key in set(zip(*(rows[name].fillna("") for name in KEYS[:4]), strict=True))}
    ordered = {key: number for number, key in enumerate(sorted(places, key=places.get))}
    return ordered.get


def _show(frames: Frames) -> list[Block | str]:
    words, table = WORDS["runtime"], frames[""]
    slugs = table["model"].unique()
    over = {"runs": describe_runs(count_seeds(slugs)), "intervals": describe_intervals(len(slugs))}
    measures = [*MEASURES, "n"]
    means = (
        table.groupby(["threat", "method", "position"], sort=False)[measures].mean().reset_index().assign(model=MEAN)
    )
    blocks = [
        Block(
            rows,
            read_columns("runtime"),
            words["caption"].format(threat=threat, **over),
            threat,
        )
        for threat, rows in means.groupby("threat", sort=False)
    ]
    claims = [
        Block(
            rows,
            read_columns("runtime", "claim_columns"),
            words["claims"].format(threat=threat, **over),
            f"claims_{threat}",
        )
        for threat, rows in frames["claims"].groupby("threat", sort=False)
    ]
    return [*blocks, words["note"], *claims, words["claims_note"]]


TABLE = Table(("runtime", "runtime_turns"), "Run-time steering", build_runtime, _show)
