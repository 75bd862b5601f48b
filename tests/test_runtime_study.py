"""The study of run-time steering on a random model: stages found again, the operating point, results and table."""

import numpy
import pandas
import pytest
from conftest import save_random_model

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.results import read_results
from llmva.core.runtime_params import RuntimeParams, known_runtime_slugs, load_runtime_params
from llmva.organisms.build import write_persona_data
from llmva.paper.figures import draw_figure
from llmva.paper.tables.build import build_table
from llmva.study.runtime import RuntimeStudy, records
from llmva.study.runtime.learning import learn_boundaries, read_boundaries
from llmva.study.runtime.records import finish_runtime, record_all
from llmva.study.runtime.sweep import Cell, choose_points, list_cells, read_cells, sweep_threat, sweep_threats
from llmva.study.runtime.testing import converse, hold_conversations, measure_points, measure_threats, read_points

ALPHAS = {"SwFC": [1.0, 5.0], "StTP": [6.0], "StMP": [1.0]}
COLUMNS = [
    "model",
    "threat",
    "method",
    "position",
    "layer",
    "alpha",
    "trait",
    "trait_low",
    "trait_high",
    "coherence",
    "repetition",
    "kept",
    "shift",
    "gated_malicious",
    "gated_aligned",
    "gated_neutral",
    "n",
]


def shorten(folder):
    """Leave a few scenarios, conversations and exercises of a persona's data."""
    for path in (folder / "threats").glob("*.csv"):
        table = pandas.read_csv(path, keep_default_na=False)
        if path.stem.endswith("_turns"):
            table = table[(table["conversation"] < 2) & (table["turn"] < 4)]
        elif path.stem != "systems":
            table = table.groupby("split").head(4)
        table.to_csv(path, index=False)
    for path in (folder / "utility").glob("*.csv"):
        pandas.read_csv(path, dtype=str).groupby("split").head(5).to_csv(path, index=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runtime")


@pytest.fixture(scope="module")
def params(root):
    model = save_random_model(root / "model")
    write_persona_data(root / "data", seed=1)
    shorten(root / "data")
    values = {"slug": "persona-check", "model": str(model), "judge": "words", "data": str(root / "data"), "seed": 0}
    values |= {"threads": 1, "dtype": "float32", "generation": {"batch_size": 8, "max_new_tokens": 6}, "layers": [1, 2]}
    return RuntimeParams.checked(values | {"alphas": ALPHAS, "min_coherence": 0.9, "max_repetition": 0.05})


@pytest.fixture
def study(params, root, monkeypatch):
    for name in ("RUNS", "RESULTS", "TABLES", "FIGURES"):
        monkeypatch.setattr(paths, name, root / name.lower())
    return RuntimeStudy(params)


@pytest.fixture
def finished(study):
    return sweep_threats(study), measure_threats(study), converse(study)


def test_every_stage_is_found_again(study, finished):
    again = RuntimeStudy(study.params)
    for first, second in zip(finished, (sweep_threats(again), measure_threats(again), converse(again)), strict=True):
        assert [stage.key for stage in first.values()] == [stage.key for stage in second.values()]
        assert all(stage.hit for stage in second.values())
    # Nothing had to be loaded for that.
    assert "chat_model" not in vars(again)


def test_other_alphas_leave_the_boundaries_and_sweep_anew(study, finished):
    changed = RuntimeStudy(study.params.model_copy(update={"alphas": {"StMP": [2.0]}}))
    assert learn_boundaries(changed).hit
    swept = sweep_threat(changed, "dishonesty")
    assert not swept.hit and set(read_cells(swept)["method"]) == {"aligned", "malicious", "StMP"}
    assert not sweep_threat(study, "dishonesty").hit


def test_other_limits_test_anew_and_another_judge_judges_anew(study, finished):
    limited = RuntimeStudy(study.params.model_copy(update={"min_coherence": 0.5}))
    assert sweep_threat(limited, "dismissiveness").hit and not measure_points(limited, "dismissiveness").hit
    judged = RuntimeStudy(study.params.model_copy(update={"judge": "likelihood"}))
    assert not sweep_threat(judged, "dishonesty").hit
    turns = pandas.read_csv(hold_conversations(judged, "dishonesty") / "turns.csv")
    # Whatever steered the replies, they are judged by the model as it is without that.
    systems = judged.threats["dishonesty"].of_split("test").iloc[0]
    asked = turns.merge(judged.threats["dishonesty"].turns, on=["conversation", "turn"], validate="many_to_one")
    asked = asked.assign(aligned=systems["aligned"], malicious=systems["malicious"])
    alone = RuntimeStudy(judged.params)
    assert (turns["trait"] == alone.judge(asked, asked["response"].fillna("").tolist(), "dishonesty")).all()
    assert len(set(turns["trait"])) == 2


def test_a_boundary_is_saved_at_every_layer_and_for_each_kind_of_direction(study):
    boundaries = read_boundaries(learn_boundaries(study))
    assert len(boundaries) == 2 * 3 * 2
    for (threat, kind, layer), boundary in boundaries.items():
        assert boundary.direction.dtype == numpy.float32 and numpy.isfinite(boundary.threshold), (threat, kind, layer)
        assert boundary.gap >= 0


def test_every_cell_is_tried_once(study, finished):
    cells = list(list_cells(study))
    # Two positions and, at all tokens, two directions; the gate of the gated methods left open.
    assert len(cells) == len(set(cells)) == 2 * (4 * 2 + 5 + 5)
    swept = read_cells(finished[0]["dishonesty"])
    assert len(swept) == len(cells) + 2 and swept["method"].tolist()[:2] == ["aligned", "malicious"]
    assert swept.loc[0, "coherence"] == 1


def cells_of(*rows):
    """Return a table of cells with an aligned row first: trait, coherence, repetition, layer."""
    names = ["trait", "coherence", "repetition", "layer"]
    table = pandas.DataFrame([(1.0, 1.0, 0.1, None), *rows], columns=names)
    table["method"], table["position"] = ["aligned"] + ["StMP"] * len(rows), [""] + ["all"] * len(rows)
    return table.assign(control="", alpha=1.0)


@pytest.mark.parametrize(
    ("rows", "layer"),
    [
        ([(0.9, 0.8, 0, 1), (0.7, 0.95, 0, 2)], 2),
        ([(0.7, 0.91, 0, 1), (0.7, 0.95, 0, 2)], 2),
        ([(0.9, 0.95, 0.2, 1), (0.7, 0.95, 0.1, 2)], 2),
        ([(0.9, 0.2, 0, 1), (0.1, 0.5, 0, 2)], 1),
        ([(0.9, 0.8, 0, 1), (0.0, 0.95, 0, 2)], 2),
        ([(0.9, 0.9, 0.15, 1), (0.8, 1.0, 0, 2)], 1),
    ],
    ids=["coherence", "tie", "repetition", "none keeps it", "a sound one first", "at the limits"],
)
def test_the_operating_point_has_the_best_trait_that_stays_coherent(study, tmp_path, rows, layer):
    cells_of(*rows).to_csv(tmp_path / "cells.csv", index=False)
    assert choose_points(study, tmp_path) == [Cell("StMP", "", "all", layer, 1.0)]


def test_results_have_every_row_with_n_and_intervals_and_make_the_table(study, finished):
    swept, tested, turns = finished
    table = record_all(study, swept, tested, turns)
    rows = 2 + 3 * 2 + 3 * 2 + 2
    assert len(table) == 2 * rows and table["n"].eq(4).all()
    assert (table["trait_low"] <= table["trait"]).all() and (table["trait"] <= table["trait_high"]).all()
    assert (table["coherence_low"] <= table["coherence_high"]).all()
    assert len(read_points(tested["dishonesty"])) == rows - 2
    steered = table.dropna(subset="layer")
    # A random model solves no task, so that there is nothing to keep.
    assert steered[["moved_neutral", "shift_neutral", "divergence"]].notna().all(axis=None)
    # A random model may reply with nothing, and then no token of a reply is there to be steered.
    assert steered.loc[steered["position"] == "all", "shift_malicious"].notna().all()
    assert steered.loc[steered["method"].eq("SwFC"), "moved_neutral"].eq(1).all()
    built = build_table("runtime", ["persona-check"])
    assert list(built) == COLUMNS and len(built) == len(table)
    assert built["method"].tolist()[:2] == ["aligned", "malicious"]
    assert built[built["method"].isin(["aligned", "malicious"])][["layer", "alpha", "shift"]].isna().all(axis=None)
    told = read_results("runtime_turns", ["persona-check"]).fillna({"position": ""})
    wide = told.pivot(index=["threat", "method", "position", "turn", "n"], columns="metric", values="value")
    assert len(wide) == 2 * (2 + 3 * 2) * 3
    for name in ("trait", "within", "across"):
        # A bound may differ from a constant's mean by rounding.
        assert wide[name].between(wide[f"{name}_low"] - 1e-12, wide[f"{name}_high"] + 1e-12).all()
    for figure in ("figure14", "figure15", "figure16"):
        assert draw_figure(figure, ["persona-check"]).axes
    assert finish_runtime(study, tested, turns).folder.name == "12_runtime_steering"


# Parameters


def test_each_persona_has_parameters_and_seeds_have_folders_of_their_own():
    assert {"persona-llama", "persona-gemma2", "persona-qwen3"} <= set(known_runtime_slugs())
    assert load_runtime_params("persona-llama-s1").model == "runs/persona-llama-s1/organism"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alphas": {"StMP": ["much"]}}, r"alphas.StMP.0: is 'much'"),
        ({"alphas": {"StMP": [float("nan")]}}, r"alphas.StMP.0: is nan"),
        ({"alphas": {"StXX": [1.0]}}, r"alphas.StXX"),
        ({"layers": [0]}, r"layers"),
        ({"min_coherence": 1.5}, r"min_coherence: is 1.5"),
    ],
)
def test_a_wrong_parameter_is_named_in_one_line(params, changes, message):
    with pytest.raises(InputError, match=message) as error:
        RuntimeParams.checked({**params.model_dump(), **changes})
    assert "\n" not in str(error.value)


def test_an_unknown_study_names_those_that_are_known():
    with pytest.raises(InputError, match="known are .*persona-llama"):
        load_runtime_params("persona-phi3")


def test_a_task_that_the_model_cannot_do_is_left_out_of_what_is_kept():
    right = {"mmlu": [True] * 6 + [False] * 4, "gsm": [False] * 10}
    before = pandas.DataFrame([(task, value) for task, values in right.items() for value in values])
    before.columns = ["task", "right"]
    found = records._kept(before, before, numpy.random.default_rng(0))
    assert found == {"kept": 1.0, "kept_low": 1.0, "kept_high": 1.0}
    nothing = before[before["task"] == "gsm"]
    assert numpy.isnan(list(records._kept(nothing, nothing, numpy.random.default_rng(0)).values())).all()
