"""Plans: sizes that are published, floors computed by hand, and all real models without network."""

import json

import pytest
from conftest import save_random_model

from llmva import paths, plan
from llmva.machines import EFFICIENCY, Machine, known_efficiency, measure_machine
from llmva.params import known_slugs, load_params, load_shapes
from llmva.results import is_organism
from llmva.shapes import Shape

REAL = [slug for slug in known_slugs() if not is_organism(slug)]
# Billions, as the models' cards give them.
PUBLISHED = {
    "llama-3.1-8b": 8.03, "gemma-2-9b": 9.24, "mistral-7b-v0.3": 7.25, "phi-3.5-mini": 3.82, "phi-4-mini": 3.84,
    "phi-4": 14.66, "qwen2.5-3b": 3.09, "qwen2.5-7b": 7.62, "qwen2.5-14b": 14.77, "qwen3-4b": 4.02, "qwen3-8b": 8.19,
    "qwen3-14b": 14.77, "qwen2.5-0.5b": 0.494, "qwen3-0.6b": 0.596,
}  # fmt: skip
FLOORS = {"A100-80": (4.7, 4.0, 16.8), "H100": (2.3, 1.3, 5.3)}


def shape_of(slug):
    return Shape(**load_shapes(slug)["shape"])


@pytest.mark.parametrize("slug", REAL)
def test_sizes_are_those_that_are_published(slug):
    assert shape_of(slug).parameters / 1e9 == pytest.approx(PUBLISHED[slug], rel=0.004)


@pytest.mark.parametrize("gpu", FLOORS)
def test_floors_are_those_computed_by_hand(gpu):
    machine = Machine(gpu, *plan.GPUS[gpu], 1.0)
    shape, judge = shape_of("llama-3.1-8b"), Shape(**load_shapes("llama-3.1-8b")["judge_shape"])
    decode, prefill, judging = FLOORS[gpu]
    assert shape.cache_bytes("bfloat16") == 131072
    both = machine.answering_seconds(shape, 712, 110, 128, 256, "bfloat16")
    alone = machine.answering_seconds(shape, 712, 110, 0, 256, "bfloat16")
    # The hand's figures count every parameter as a matrix, and round.
    assert alone == pytest.approx(prefill, rel=0.12) and both - alone == pytest.approx(decode, rel=0.12)
    assert machine.answering_seconds(judge, 712, 450, 0, 256, "bfloat16") == pytest.approx(judging, rel=0.12)


def test_the_share_of_the_roofline_is_measured_here_and_kept_for_other_plans(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    assert known_efficiency() == (EFFICIENCY, "assumed; `GPU=here` measures it")
    small = shape_of("qwen2.5-0.5b")
    here = measure_machine(small)
    assert 0 < here.efficiency <= 1 and here.flops > 1e9 and here.bandwidth > 1e8
    efficiency, source = known_efficiency()
    assert (efficiency, source) == (here.efficiency, f"measured on {here.name}, so a guess for a GPU")
    with pytest.raises(SystemExit):
        plan.main(["qwen3-4b", "--gpu", "H200"])
    assert (
        f"H200: 989 TFLOP/s, 4.8 TB/s, 141 GB; {efficiency:.0%} of the roofline ({source})" in capsys.readouterr().out
    )
    (tmp_path / "machine.json").write_text("{broken")
    assert known_efficiency()[0] == EFFICIENCY


@pytest.mark.parametrize("slug", REAL)
def test_every_real_model_has_a_plan_without_network(slug, capsys):
    with pytest.raises(SystemExit) as stop:
        plan.main([slug, "--gpu", "A100-80"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert "A100-80" in printed and "memory" in printed and "disk" in printed and "in all" in printed


def test_more_iterations_cost_more_and_a_model_too_large_is_told():
    params = load_params("qwen2.5-14b")
    model, judge = (Shape(**value) for value in load_shapes("qwen2.5-14b").values())
    machine = Machine("H100", *plan.GPUS["H100"], 0.35)
    short = plan.plan_stages(params.model_copy(update={"iterations": 10}), model, judge, machine)
    whole = plan.plan_stages(params, model, judge, machine)
    longer = whole["hours"] / short["hours"]
    assert longer["04 alignment loop"] == pytest.approx(25 / 5) and longer["00 prompts"] == 1
    assert longer["05 tuning of the baselines"] == pytest.approx(31 / 11)
    assert whole.loc["04 alignment loop", "replies"] == 25 * (512 + 200)
    small = Machine("RTX4090", *plan.GPUS["RTX4090"], 0.35)
    assert "use several devices" in "\n".join(plan._lines(params, model, judge, small))


def test_a_folder_of_your_own_has_a_plan_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    folder = save_random_model(tmp_path / "model")
    with pytest.raises(SystemExit) as stop:
        plan.main([str(folder)])
    printed = capsys.readouterr().out
    assert stop.value.code == 0 and "judged by phrases" in printed and f"weights here already: {folder}" in printed
    assert not (tmp_path / "runs").exists()


def test_weights_are_here_when_every_shard_is(tmp_path, monkeypatch):
    name, files = f"owner/name@{'0' * 40}", {}
    monkeypatch.setattr(plan, "try_to_load_from_cache", lambda _, file, revision: files.get(file))
    files["config.json"] = "config.json"
    assert not plan._is_here(name)
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    files |= {"model.safetensors.index.json": str(index), "one.safetensors": "one"}
    assert not plan._is_here(name)
    files["two.safetensors"] = "two"
    assert plan._is_here(name)
    assert not plan._is_here("owner/name")


def test_weights_that_one_device_cannot_hold_are_told():
    params = load_params("phi-4")
    model, judge = (Shape(**value) for value in load_shapes("phi-4").values())
    lines = "\n".join(plan._lines(params, model, judge, Machine("H100", *plan.GPUS["H100"], 0.35)))
    # Two copies of 29.3 GB and a judge of 16.4 are more than 80 % of 80.
    assert "of the weights 64 GB stay on one device" in lines


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["nosuch"], "nosuch: unknown model"),
        (["qwen3-4b", "--gpu", "B7"], "GPU: B7: not known; choose A100-80"),
        (["qwen3-4b", "--efficiency", "2"], "efficiency: is 2.0; it must be above 0"),
    ],
)
def test_mistakes_are_one_line(arguments, expected, capsys):
    with pytest.raises(SystemExit) as stop:
        plan.main(arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {expected}")
