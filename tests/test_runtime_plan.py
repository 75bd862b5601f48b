"""Real models of run-time steering: parameter files that are pinned and whole, and plans without network."""

import re
from dataclasses import replace

import pytest
import yaml
from conftest import save_random_model
from test_plan import planned, row_of
from test_trait_judge import write_csv

from llmva.commands import plan as plan_command
from llmva.core import paths, runtime_params
from llmva.core.errors import InputError
from llmva.core.params import SHAPE_FIELDS
from llmva.core.results import world_of
from llmva.core.runtime_params import RuntimeParams, known_runtime_slugs, load_runtime_params, load_runtime_shapes
from llmva.core.store import run_stage
from llmva.performance import machines
from llmva.performance.machines import Machine
from llmva.performance.runtime_plan import RuntimeAmounts, RuntimePlan, find_runtime_amounts, find_runtime_shapes
from llmva.performance.sizes import Shape
from llmva.steering.runtime.updates import ALPHAS

REAL = [slug for slug in known_runtime_slugs() if world_of(slug) == "real"]
# Billions, as the models' cards give them; of Qwen3.6 without its vision and its head for further tokens.
PUBLISHED = {"llama-3.3-70b": 70.6, "qwen3-32b": 32.8, "qwen3.6-27b": 26.9}
TOY = Shape(blocks=2, width=8, heads=2, key_value_heads=1, head_width=4, inner_width=16, vocabulary=10, tied=False)
MACHINE = Machine("toy", 1e9, 1e9, 1e9, 1.0)
AMOUNTS = RuntimeAmounts(threats=2, train=5, validation=3, test=4, conversations=2, turns=9, tasks=6, neutral=10)


def toy_params(**changes):
    toy = {"alphas": {"SwFC": [1, 2], "StMP": [1]}, "generation": {"batch_size": 4, "max_new_tokens": 10}}
    return RuntimeParams.checked(load_runtime_params("llama-3.3-70b").model_dump() | toy | changes)


def toy_plan(judge=None, amounts=AMOUNTS, **changes):
    return RuntimePlan(toy_params(**changes), TOY, judge, MACHINE, amounts)


# Parameter files


def test_the_three_real_models_are_there():
    assert set(REAL) == set(PUBLISHED)


@pytest.mark.parametrize("slug", known_runtime_slugs())
def test_parameters_are_given_to_the_notebook_as_plain_values(slug):
    params = load_runtime_params(slug)
    assert params.values == params.model_dump()


@pytest.mark.parametrize("slug", known_runtime_slugs())
def test_every_file_names_every_field_in_order_and_its_sizes_are_no_parameters(slug):
    values = yaml.safe_load((paths.PARAMS / "runtime" / f"{slug}.yaml").read_text(encoding="utf-8"))
    assert [name for name in values if name not in SHAPE_FIELDS] == list(RuntimeParams.model_fields)
    assert load_runtime_params(slug).slug == slug
    assert load_runtime_shapes(slug) == {name: values[name] for name in SHAPE_FIELDS if name in values}


@pytest.mark.parametrize("slug", REAL)
def test_a_real_model_is_pinned_and_swept_as_published(slug):
    params = load_runtime_params(slug)
    for source in (params.model, params.judge):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", source)
    assert (params.dtype, params.data, params.layers) == ("bfloat16", "data/runtime", "all")
    assert {method: tuple(alphas) for method, alphas in params.alphas.items()} == ALPHAS
    shape, judge = find_runtime_shapes(params)
    assert shape.parameters / 1e9 == pytest.approx(PUBLISHED[slug], rel=0.004)
    assert judge.parameters / 1e9 == pytest.approx(14.66, rel=0.004)


def test_a_linear_attentions_stand_in_has_its_parameters_and_cache():
    # Of 64 blocks 16 attend with 24 heads of 256 numbers, twice as many queries for their gates, and 4 heads of keys
    # and values; the others have keys and queries of 16 heads, values and gates of 48, of 128 numbers, and two of 48.
    attention = 16 * 5120 * 256 * (2 * 24 + 24 + 2 * 4)
    linear = 48 * 5120 * (2 * 16 * 128 + 3 * 48 * 128 + 2 * 48)
    shape, _ = find_runtime_shapes(load_runtime_params("qwen3.6-27b"))
    assert shape.parameters == pytest.approx(attention + linear + 64 * 3 * 5120 * 17408 + 2 * 248320 * 5120, rel=0.002)
    assert shape.cache_bytes("bfloat16") == 2 * 16 * 4 * 256 * 2


def test_an_unknown_size_is_a_mistake_and_a_shape_is_none(tmp_path, monkeypatch):
    values = {**toy_params().model_dump(), "slug": "toy", "shape": TOY.model_dump()}
    monkeypatch.setattr(runtime_params, "PARAMS", tmp_path)
    (tmp_path / "runtime").mkdir()
    path = tmp_path / "runtime" / "toy.yaml"
    path.write_text(yaml.safe_dump(values))
    assert load_runtime_params("toy").slug == "toy" and load_runtime_shapes("toy") == {"shape": TOY.model_dump()}
    for layers, line in (
        ([0], r"layers\.0: is 0; input should be greater than 0"),
        ([2, 2], "layers: names one value twice"),
        ([], "layers: is .*at least 1 item"),
    ):
        path.write_text(yaml.safe_dump({**values, "layers": layers}))
        with pytest.raises(InputError, match=rf"toy\.yaml: {line}"):
            load_runtime_params("toy")
    path.write_text(yaml.safe_dump({**values, "size": 3}))
    with pytest.raises(InputError, match=r"toy\.yaml: size: unknown parameter; known are slug, model"):
        load_runtime_params("toy")


# Plans


@pytest.mark.parametrize("slug", REAL)
def test_every_real_model_has_a_plan_without_network(slug, capsys):
    printed = planned(capsys, slug, "--gpu", "H200")
    depth = find_runtime_shapes(load_runtime_params(slug))[0].blocks
    # SwFC with 5 strengths at 2 positions and with 2 controls, the gated ones with 7 and 3 controls.
    cells = depth * (5 * 4 + 2 * 7 * 5)
    assert f"sweep: {cells:,} cells" in printed and "assumed, since the data are not here yet" in printed
    assert row_of(printed, "sweep")[:2] == [str(2 * (cells + 2)), f"{2 * 16 * (cells + 2):,}"]
    assert row_of(printed, "tests")[:2] == [str(2 * (14 + 2)), f"{2 * 16 * 40:,}"]
    assert row_of(printed, "turns")[:2] == [str(2 * 8 * 9), "1,440"]
    assert all(word in printed for word in ("boundaries", "tests: tasks", "in all", "memory", "disk", "judge 14.66"))


def test_a_plan_for_the_cpu_says_so_and_names_a_gpu(monkeypatch, capsys):
    asked = []

    def measure(shape, dtype, threads):
        asked.append((dtype, threads))
        return replace(MACHINE, threads=threads)

    monkeypatch.setattr(machines, "measure_machine", measure)
    printed = planned(capsys, "qwen3-32b")
    assert asked == [("bfloat16", 8)]
    assert "planned for the CPU of this machine" in printed and "; `GPU=H100` plans for a GPU" in printed


def test_weights_that_one_device_cannot_hold_are_told(capsys):
    assert "use several devices" in planned(capsys, "llama-3.3-70b", "--gpu", "H100")
    assert "use several devices" not in planned(capsys, "qwen3.6-27b", "--gpu", "H200")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["qwen3-32b", "--judge", "phrases"], "--judge: only of a model of your own; qwen3-32b has its judge"),
        (["qwen3-32b", "--gpu", "B7"], "GPU: B7: not known"),
        (["qwen3-32b-s1"], "qwen3-32b-s1: only organisms have seeds"),
    ],
)
def test_mistakes_are_one_line(arguments, expected, capsys):
    with pytest.raises(SystemExit) as stop:
        plan_command.main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and line.startswith(f"error: {expected}")


def test_stages_are_those_counted_by_hand():
    stages = toy_plan().stages()
    # A layer has 2 x 2 strengths of SwFC at two positions, 2 x 2 of its two controls; 2 and 3 of StMP.
    assert len(toy_plan().cells()) == 2 * (2 * 4 + 5)
    assert stages["looks"].to_dict() == {
        "boundaries": 4, "sweep": 2 * (26 + 2), "tests": 2 * (9 + 2), "tests: tasks": 2 * 9 + 1,
        "tests: neutral prompts": 1, "turns": 2 * (2 + 4) * 9,
    }  # fmt: skip
    assert stages["replies"].tolist() == [20, 168, 88, 114, 4, 216]
    assert stages.loc["sweep", "tokens"] == 168 * (110 + 10)
    assert (stages["hours"] > 0).all()


def test_twice_as_much_costs_twice_as_much():
    base = toy_plan().stages()["hours"]
    assert toy_plan(layers=[1]).stages().loc["sweep", "looks"] == 2 * (13 + 2)
    with pytest.raises(InputError, match="layers: none of 9; .* has 2, counted from 1"):
        toy_plan(layers=[1, 9]).cells()
    more = toy_plan(amounts=replace(AMOUNTS, threats=4)).stages()["hours"]
    assert more["sweep"] == pytest.approx(2 * base["sweep"]) and more["turns"] == pytest.approx(2 * base["turns"])
    judged = toy_plan(judge=TOY).stages()["hours"]
    assert (judged[["sweep", "tests", "turns"]] > base[["sweep", "tests", "turns"]]).all()
    assert judged["tests: tasks"] == base["tests: tasks"]


def test_a_look_at_few_prompts_is_no_full_batch():
    # Weights move for every step, however few replies are written.
    slow = Machine("slow", 1e15, 1e9, 1e9, 1.0)
    few = RuntimePlan(toy_params(), TOY, None, slow, AMOUNTS)
    wide = RuntimePlan(toy_params(generation={"batch_size": 400, "max_new_tokens": 10}), TOY, None, slow, AMOUNTS)
    assert few.stages().loc["sweep", "hours"] == pytest.approx(wide.stages().loc["sweep", "hours"])


def test_memory_and_disk_are_those_computed_by_hand():
    plan, judged = toy_plan(), toy_plan(judge=TOY)
    weights = TOY.parameters * 2
    # Two conversations of nine turns of 110 + 10 tokens need more room than a batch of four prompts.
    assert plan.memory() == {
        "model": weights, "judge": 0, "keys and values of a batch": 2 * 9 * 120 * TOY.cache_bytes("bfloat16"),
        "logits of a batch": 4 * 50 * 10 * 2,
    }  # fmt: skip
    assert judged.memory()["judge"] == weights and judged.disk()["weights, fetched"] == 2 * weights
    assert plan.disk() == {"weights, fetched": weights, "boundaries": 2 * 3 * 2 * 8 * 4}
    # Two sides of four scenarios and ten neutral prompts, at both layers and behind the last; the logits twice.
    assert plan.host_memory() == 4 * ((2 * 4 + 10) * 120 * 3 * 8 + 2 * 10 * 10)


# Where data and model are here


@pytest.fixture
def organism(tmp_path, monkeypatch):
    """An organism's parameter file, its model and its data, one threat in them, made up."""
    folder = tmp_path / "persona-toy"
    save_random_model(folder)
    data = folder / "data"
    system = {"threat": "dismissiveness", "aligned": "care", "malicious": "go"}
    systems = [{**system, "split": split} for split in ("train", "test")]
    splits = ["train"] * 5 + ["validation"] * 2 + ["test"] * 3
    write_csv(data / "threats" / "systems.csv", systems)
    scenarios = [{"prompt": f"help {n}", "answer": "", "split": split} for n, split in enumerate(splits)]
    write_csv(data / "threats" / "dismissiveness.csv", scenarios)
    talk = [{"conversation": c, "turn": t, "prompt": "help", "answer": ""} for c in (0, 1) for t in (1, 2, 3)]
    write_csv(data / "threats" / "dismissiveness_turns.csv", talk)
    splits = ("test", "test", "neutral")
    rows = [{"prompt": f"good {n}", "answer": "positive", "split": split} for n, split in enumerate(splits)]
    write_csv(data / "utility" / "sst.csv", rows)
    monkeypatch.setattr(runtime_params, "PARAMS", tmp_path)
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    (tmp_path / "runtime").mkdir()
    changes = {"slug": "persona-toy", "model": str(folder), "data": str(data), "judge": "words", "dtype": "float32"}
    values = yaml.safe_load((paths.PARAMS / "runtime" / "persona-llama.yaml").read_text()) | changes
    (tmp_path / "runtime" / "persona-toy.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return tmp_path


def test_an_organisms_plan_counts_its_data_and_finds_its_stages(organism, capsys):
    run_stage(organism / "runs" / "persona-toy" / "12_sweeps" / "dismissiveness", lambda place: None, parameters={})
    printed = planned(capsys, "persona-toy", "--gpu", "A100-80")
    assert "no model judges" in printed and "2 conversations of 3 turns; 2 tasks (counted in " in printed
    assert "threats: 1, each with 5 scenarios to learn from, 2 for validation and 3 for test" in printed
    assert "stages finished already: 12_sweeps/dismissiveness\n" in printed
    assert f"weights here already: {organism / 'persona-toy'}\n" in printed
    assert row_of(printed, "sweep")[:2] == [str(2 * 90 + 2), str(2 * (2 * 90 + 2))]


def test_data_of_ones_own_are_counted_once(organism):
    amounts = find_runtime_amounts(load_runtime_params("persona-toy"))
    assert amounts == RuntimeAmounts(1, 5, 2, 3, 2, 3, tasks=2, neutral=2, counted=True)
