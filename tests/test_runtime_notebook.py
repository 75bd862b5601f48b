"""Notebook 12: the numbers in its reading are those of the committed results of its organism."""

import nbformat
import pandas
import pytest
from prose import changed_at_each_number, unchecked_numbers
from test_committed import committed  # noqa: F401

from llmva.core.paths import NOTEBOOKS

SLUG = "persona-llama"
METHODS = ("SwFC", "StTP", "StMP")
LIE, CURT = THREATS = ("dishonesty", "dismissiveness")


def read_reading() -> str:
    """Return the notebook's last cell."""
    return nbformat.read(NOTEBOOKS / "12_runtime_steering.ipynb", as_version=4).cells[-1].source


def fragments(folder) -> list[str]:
    """Return what the results say, in the notebook's words."""
    rows = pandas.read_csv(folder / "results" / SLUG / "runtime.csv").fillna({"position": ""})
    table = rows.pivot_table(index=["threat", "method", "position"], columns="metric", values="value")
    assert (table.loc[[(threat, "malicious", "") for threat in THREATS], "trait"] == 0).all()
    assert (table.loc[[(threat, "aligned", "") for threat in THREATS], "trait"] == 1).all()

    def of(column, method, position="all", form=".2f"):
        return " and ".join(f"{table.loc[(threat, method, position), column]:{form}}" for threat in THREATS)

    sounds = {(threat, method) for threat, method in keeps_coherence(folder)}
    assert sounds == {(LIE, "StTP"), (LIE, "StMP")}
    reply = table.xs("response", level="position")["trait"]
    random = table[table.index.get_level_values("method").str.endswith("(random direction)")]["trait"]
    assert (random == 0).all() and reply.max() <= 0.05
    for threat in THREATS:
        for method in ("StTP", "StMP"):
            moved = table["shift_neutral"][threat]
            assert moved[f"{method} (gate always on)", "all"] > moved[method, "all"]
        for method in METHODS:
            other = table.loc[(threat, f"{method} (mean difference)", "all"), "trait"]
            assert other > table.loc[(threat, method, "all"), "trait"] - 0.06
    turns = pandas.read_csv(folder / "results" / SLUG / "runtime_turns.csv").fillna({"position": ""})
    within = turns[(turns["metric"] == "within") & (turns["position"] == "all")]
    within = within.set_index(["threat", "method", "turn"])["value"].sort_index()
    assert within[:, "StTP"].max() == within[:, "StMP"].max() == 0
    (n,) = rows.loc[rows["metric"] == "trait", "n"].unique()
    return [
        f"{n} scenarios leave wide intervals",
        *(f"{method} {of('trait', method)}" for method in METHODS),
        *(f"of {method} {of('coherence', method)}" for method in METHODS),
        "keeps a coherence of 0.9",
        f"it brings back {reply.max():.2f} at most",
        f"StMP brings back {of('trait', 'StMP (gate always on)')}, and StTP {of('trait', 'StTP (gate always on)')}",
        f"SwFC moves every token by {of('shift_neutral', 'SwFC', form='.0f')}, StTP and StMP move them by "
        f"{of('shift_neutral', 'StTP', form='.0f')} and by {of('shift_neutral', 'StMP', form='.0f')} on average",
        f"and they keep {of('kept', 'SwFC')}, {of('kept', 'StTP')}, and {of('kept', 'StMP')} of the tasks",
        f"against dismissiveness, {within[CURT, 'SwFC', 1]:.2f} of the 4-grams in the first turn and "
        f"{within[CURT, 'SwFC', 9]:.2f} in the ninth",
    ]


def keeps_coherence(folder):
    """Yield the threats and methods with a cell that keeps 0.9 of the coherence and does not repeat more."""
    rows = pandas.read_csv(folder / "results" / SLUG / "runtime_sweep.csv")
    rows = rows[(rows["position"] == "all") & rows["method"].isin(METHODS)]
    cells = rows.pivot(index=["threat", "method", "layer", "alpha"], columns="metric", values="value")
    sound = cells[(cells["coherence"] >= 0.9) & (cells["repetition"] <= 0.05)]
    yield from sound.index.droplevel(["layer", "alpha"]).unique()


def test_a_sentence_of_the_reading_is_what_the_results_say(committed):  # noqa: F811
    text = read_reading()
    assert not [fragment for fragment in fragments(committed) if fragment not in text]


def test_no_number_of_the_reading_is_unchecked(committed):  # noqa: F811
    found = fragments(committed)
    assert not unchecked_numbers(read_reading(), found)
    assert all(unchecked_numbers(copy, found) for copy in changed_at_each_number(read_reading()))


@pytest.mark.parametrize("slug", ["persona-llama", "persona-gemma2", "persona-qwen3"])
def test_an_organism_shows_both_traits_and_loses_both(committed, slug):  # noqa: F811
    for name in (slug, f"{slug}-s1"):
        rows = pandas.read_csv(committed / "results" / name / "runtime.csv")
        traits = rows[rows["metric"] == "trait"].groupby(["method", "threat"])["value"].first()
        assert traits["aligned"].min() >= 0.9 and traits["malicious"].max() <= 0.35
