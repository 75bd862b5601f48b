"""Plans: sizes that are published, floors computed by hand, and all real models without network."""

import json
import re

import pytest
import torch
from conftest import prompt_table, save_random_model
from gguf_models import save_random_gguf

from llmva.aligned_model.params import build_params
from llmva.commands import plan as plan_command
from llmva.commands.align import make_parser
from llmva.core import paths
from llmva.core.params import known_slugs, load_params, load_shapes
from llmva.core.provenance import file_digest
from llmva.core.results import world_of
from llmva.core.store import run_stage
from llmva.performance import machines, plan
from llmva.performance import sizes as shapes
from llmva.performance.machines import EFFICIENCY, Machine, choose_machine, known_efficiency, measure_machine
from llmva.performance.plan import Plan
from llmva.performance.sizes import Amounts, Shape, count_amounts, expect_amounts

REAL = [slug for slug in known_slugs() if world_of(slug) == "real"]
# Billions, as the models' cards give them.
PUBLISHED = {
    "llama-3.1-8b": 8.03, "gemma-2-9b": 9.24, "mistral-7b-v0.3": 7.25, "phi-3.5-mini": 3.82, "phi-4-mini": 3.84,
    "phi-4": 14.66, "qwen2.5-3b": 3.09, "qwen2.5-7b": 7.62, "qwen2.5-14b": 14.77, "qwen3-4b": 4.02, "qwen3-8b": 8.19,
    "qwen3-14b": 14.77, "qwen2.5-0.5b": 0.494, "qwen3-0.6b": 0.596,
}  # fmt: skip
# The repositories, and the guard of each: the paper's, or for the two small models the smallest of its family.
HOMES = {
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B-Instruct", "gemma-2-9b": "google/gemma-2-9b-it",
    "mistral-7b-v0.3": "mistralai/Mistral-7B-Instruct-v0.3", "phi-3.5-mini": "microsoft/Phi-3.5-mini-instruct",
    "phi-4-mini": "microsoft/Phi-4-mini-instruct", "phi-4": "microsoft/phi-4",
    "qwen2.5-3b": "Qwen/Qwen2.5-3B-Instruct", "qwen2.5-7b": "Qwen/Qwen2.5-7B-Instruct",
    "qwen2.5-14b": "Qwen/Qwen2.5-14B-Instruct", "qwen3-4b": "Qwen/Qwen3-4B", "qwen3-8b": "Qwen/Qwen3-8B",
    "qwen3-14b": "Qwen/Qwen3-14B", "qwen2.5-0.5b": "Qwen/Qwen2.5-0.5B-Instruct", "qwen3-0.6b": "Qwen/Qwen3-0.6B",
}  # fmt: skip
SMALL = ("qwen2.5-0.5b", "qwen3-0.6b")
# 2 blocks of 192 + 384 weights, and 10 x 8 for the output layer: 1232; with the embedding 1312.
TOY = Shape(blocks=2, width=8, heads=2, key_value_heads=1, head_width=4, inner_width=16, vocabulary=10, tied=False)
TOY_MACHINE = Machine("toy", 1e9, 1e9, 1e9, 1.0)
TEN_ROWS = Amounts(candidates=20, sample=6, train=12, validation=4, test=4, transfer=0, tasks=0)
ON_THE_HUB = f"owner/name@{'0' * 40}"
FLOORS = {"A100-80": (4.7, 4.0, 16.8), "H100": (2.3, 1.3, 5.3)}


def shape_of(slug):
    return Shape(**load_shapes(slug)["shape"])


@pytest.mark.parametrize("slug", REAL)
def test_sizes_are_those_that_are_published(slug):
    assert shape_of(slug).parameters / 1e9 == pytest.approx(PUBLISHED[slug], rel=0.004)


def test_every_slug_is_of_its_repository_and_guard_each_at_a_commit():
    found = {slug: load_params(slug) for slug in REAL}
    assert {slug: params.model.split("@")[0] for slug, params in found.items()} == HOMES
    for slug, params in found.items():
        guard, _, commit = params.judge_model.partition("@")
        assert guard == f"Qwen/Qwen3Guard-Gen-{'0.6B' if slug in SMALL else '8B'}"
        assert len(commit) == len(params.model.partition("@")[2]) == 40


@pytest.mark.parametrize("gpu", FLOORS)
def test_floors_are_those_computed_by_hand(gpu):
    machine = Machine(gpu, *machines.GPUS[gpu], 1.0)
    shape, judge = shape_of("llama-3.1-8b"), Shape(**load_shapes("llama-3.1-8b")["judge_shape"])
    decode, prefill, judging = FLOORS[gpu]
    assert shape.cache_bytes("bfloat16") == 131072
    both = machine.answering_seconds(shape, 712, 110, 128, 256, "bfloat16")
    alone = machine.answering_seconds(shape, 712, 110, 0, 256, "bfloat16")
    # The hand's figures count every parameter as a matrix, and round.
    assert alone == pytest.approx(prefill, rel=0.12) and both - alone == pytest.approx(decode, rel=0.12)
    assert machine.answering_seconds(judge, 712, 450, 0, 256, "bfloat16") == pytest.approx(judging, rel=0.12)


# Machines


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """A CPU that was measured, planted; the list has what was asked of each measurement."""
    asked = []

    def measure(shape, dtype, threads):
        asked.append((shape, dtype, threads))
        return Machine("CPU", 1e12, 1e10, 1e9, 0.123, dtype, threads)

    monkeypatch.setattr(machines, "measure_machine", measure)
    return asked


def test_a_cpu_is_measured_in_the_type_and_with_the_threads_of_a_study(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    monkeypatch.setattr(machines, "COPIED", 2**20)
    monkeypatch.setattr(machines, "TRIALS", {"cpu": (4, 2)})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    peaks, trials, usual = [], [], torch.get_num_threads()

    def multiply(left, right):
        peaks.append((left.dtype, right.dtype, torch.get_num_threads()))
        return left

    def build(shape, dtype, device):
        trials.append((dtype, torch.get_num_threads()))
        return shapes.random_model(shape, dtype, device)

    monkeypatch.setattr(machines, "linear", multiply)
    monkeypatch.setattr(machines, "random_model", build)
    for dtype in ("bfloat16", "float32"):
        here = measure_machine(TOY, dtype, usual + 1)
        assert (here.name, here.dtype, here.threads) == ("CPU", dtype, usual + 1)
        assert 0 < here.efficiency <= 1 and min(here.flops, here.bandwidth, here.memory) > 1e6
        assert set(peaks) == {(getattr(torch, dtype),) * 2 + (usual + 1,)} and trials == [(dtype, usual + 1)]
        assert f"measuring this machine with two blocks of this shape in {dtype}" in capsys.readouterr().err
        peaks.clear(), trials.clear()
    # A CPU's share says nothing of a GPU.
    assert torch.get_num_threads() == usual and not list(tmp_path.iterdir())


def plant_gpu(monkeypatch, dtype):
    """Make measurements find a GPU of which plain generation reaches a quarter."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(machines, "_measure_peaks", lambda *_: Machine("a GPU", 1e14, 1e12, 8e10, 1.0, dtype))
    monkeypatch.setattr(machines, "_roofline_share", lambda *_: 0.25)


def test_what_a_gpu_reaches_is_kept_for_plans_of_the_same_type(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    assumed = EFFICIENCY, "assumed; `GPU=here` on a GPU measures it"
    assert known_efficiency("bfloat16") == assumed
    plant_gpu(monkeypatch, "bfloat16")
    measure_machine(TOY, "bfloat16", 1)
    assert known_efficiency("bfloat16") == assumed
    measure_machine(shape_of("qwen2.5-0.5b"), "bfloat16", 1)
    assert known_efficiency("bfloat16") == (0.25, "measured on a GPU") and known_efficiency("float32") == assumed
    line = "H200: 989 TFLOP/s in bfloat16, 4.8 TB/s, 141 GB; 25% of the roofline (measured on a GPU)"
    assert line in planned(capsys, "qwen3-4b", "--gpu", "H200")
    kept = json.loads((tmp_path / "machine.json").read_text())
    # As it was before types were kept.
    (tmp_path / "machine.json").write_text(json.dumps({name: kept[name] for name in kept if name != "dtype"}))
    assert known_efficiency("bfloat16") == assumed
    (tmp_path / "machine.json").write_text("{broken")
    assert known_efficiency("bfloat16") == assumed


@pytest.mark.parametrize("flops, prompts", [(1e5, 64), (5e4, 32), (1.0, 4)])
def test_a_slow_machine_tries_fewer_prompts(flops, prompts):
    # 64 prompts of 4 tokens read and 1 written cost 2 x 1232 x 320 operations, which take 7.9 s at 1e5 a second.
    machine = Machine("toy", flops, 1e12, 1e9, 1.0, "float32")
    assert machines.count_trial_prompts(machine, TOY, 4, 1) == prompts


@pytest.mark.parametrize("slug, advice", [("qwen2.5-0.5b", ""), ("llama-3.1-8b", "; `GPU=H100` plans for a GPU")])
def test_the_default_is_this_machine_and_a_plan_for_its_cpu_says_so(slug, advice, measured, monkeypatch, capsys):
    monkeypatch.setattr(plan_command.os, "cpu_count", lambda: 2)
    first, second, third, fourth = planned(capsys, slug).splitlines()[:4]
    assert measured == [(shape_of(slug), "bfloat16", 8)]
    assert first.startswith(f"{slug}: ") and third.endswith("as if in bfloat16")
    assert second == (
        f"planned for the CPU of this machine (threads: 8, as in the study; cores: 2), measured in bfloat16{advice}"
    )
    assert fourth == "CPU: 1 TFLOP/s in bfloat16, 0.01 TB/s, 1 GB; 12% of the roofline (measured now)"
    assert "of the CPU of this machine" not in planned(capsys, slug, "--gpu", "H100") and len(measured) == 1


def test_a_model_of_your_own_is_measured_in_its_type(own, measured, capsys):
    planned(capsys, own)
    planned(capsys, own, "--dtype", "bfloat16", "--threads", 3)
    assert [asked[1:] for asked in measured] == [("float32", 2), ("bfloat16", 3)]


@pytest.mark.parametrize("slug", REAL)
def test_every_real_model_has_a_plan_without_network(slug, capsys):
    with pytest.raises(SystemExit) as stop:
        plan_command.main([slug, "--gpu", "A100-80"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert "A100-80" in printed and "memory" in printed and "disk" in printed and "in all" in printed


def test_more_iterations_cost_more_and_a_model_too_large_is_told():
    params = load_params("qwen2.5-14b")
    model, judge = (Shape(**value) for value in load_shapes("qwen2.5-14b").values())
    machine = Machine("H100", *machines.GPUS["H100"], 0.35)
    amounts = expect_amounts(params)
    few = params.model_copy(update={"iterations": 10})
    short = Plan(few, model, judge, machine, amounts).stages()
    whole = Plan(params, model, judge, machine, amounts).stages()
    longer = whole["hours"] / short["hours"]
    assert longer["04 alignment loop"] == pytest.approx(25 / 5) and longer["00 prompts"] == 1
    assert longer["05 tuning of the baselines"] == pytest.approx(31 / 11)
    assert whole.loc["04 alignment loop", "replies"] == 25 * (512 + 200)
    small = Machine("RTX4090", *machines.GPUS["RTX4090"], 0.35)
    assert "use several devices" in "\n".join(plan_command._lines(Plan(params, model, judge, small, amounts)))


# A model of your own


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A checkpoint folder, 400 prompts of two sets, and no runs yet."""
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    prompt_table(200).drop(columns="group").to_csv(tmp_path / "prompts.csv", index=False)
    return save_random_model(tmp_path / "model")


def planned(capsys, *arguments):
    """Return the lines of a plan; those of the table by the name of the stage, in words."""
    with pytest.raises(SystemExit) as stop:
        plan_command.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert stop.value.code == 0, printed.err
    return printed.out


def row_of(printed, stage):
    (line,) = [line for line in printed.splitlines() if line[:38].strip() == stage]
    return line[38:].split()


def test_a_folder_of_your_own_has_a_plan_and_nothing_is_written(own, tmp_path, capsys):
    printed = planned(capsys, own)
    assert "judged by words" in printed and f"weights here already: {own}" in printed
    # Four generated sets of 1500 prompts each.
    assert "6,000 prompts" in printed and "assumed" in printed and row_of(printed, "prompts")[:2] == ["1", "6,000"]
    assert not (tmp_path / "runs").exists()


def test_prompts_of_your_own_are_counted(own, tmp_path, capsys):
    printed = planned(capsys, own, "--data", tmp_path / "prompts.csv")
    assert "400 prompts, 40 of them for validation and 40 for test; 0 of unseen sets, 0 of tasks (counted in" in printed
    assert row_of(printed, "prompts")[:2] == ["1", "400"]
    # The original, then three candidates of 12 rounds each, of 2 x 128 training prompts and all for validation.
    assert row_of(printed, "LLM-VA-R")[:2] == ["37", "10,952"]
    assert row_of(printed, "before and after: test, tasks")[:2] == ["2", "80"]
    assert "fine-tun" not in printed and "09 tasks" not in printed


def test_the_paper_s_method_has_a_plan_of_its_own(own, tmp_path, capsys):
    printed = planned(capsys, own, "--data", tmp_path / "prompts.csv", "--method", "llm-va", "--dtype", "bfloat16")
    assert "aligned with LLM-VA\n" in printed and "bfloat16" in printed
    assert row_of(printed, "layer selection")[:2] == ["31", "9,176"]
    assert row_of(printed, "alignment loop")[:2] == ["20", "5,920"]
    assert "LLM-VA-R" not in printed.split("memory")[0].split("stage ")[1]


def test_a_split_that_is_larger_than_its_share_of_the_pool_is_cut_to_it(own, tmp_path):
    params = load_params("tiny-llama").model_copy(update={"data": str(tmp_path / "prompts.csv")})
    small = params.model_copy(update={"pool_size": 50, "candidates": 100, "sample_per_dataset": 30})
    # Of each set 10 of 100 for test, of which a pool of 50 takes 5.
    assert count_amounts(small) == Amounts(200, 60, 80, 10, 10, 0, 0, counted=True)
    assert count_amounts(params) == Amounts(400, 256, 320, 40, 40, 0, 0, counted=True)


def test_what_is_finished_is_found_and_what_is_damaged_is_not(own, tmp_path, capsys):
    given = ["--data", str(tmp_path / "prompts.csv")]
    folder = build_params(make_parser().parse_args(["--model", str(own), *given])).run_folder
    for name in ("00_start_here", "llm_va_r", "03_layer_selection"):
        run_stage(folder / name, lambda place: (place / "a.csv").write_text("1\n") and None, parameters={})
    assert "stages finished already: 00_start_here, 03_layer_selection, llm_va_r\n" in planned(capsys, own, *given)
    (folder / "llm_va_r" / "a.csv").write_text("2\n")
    (folder / "03_layer_selection" / "manifest.json").write_text("{")
    assert "stages finished already: 00_start_here\n" in planned(capsys, own, *given)
    # Other prompts, or none, are another study.
    assert "stages finished already: none\n" in planned(capsys, own)


def test_generated_prompts_are_those_that_align_will_write(own):
    options = make_parser().parse_args(["--model", str(own)])
    named = build_params(options, write=False)
    assert named.data == str(named.run_folder / "data") and not named.run_folder.exists()
    assert build_params(options) == named and (named.run_folder / "data" / "safety" / "nq.csv").is_file()


@pytest.mark.parametrize(
    "given, expected",
    [
        ([ON_THE_HUB], f"model: {ON_THE_HUB}: not on this machine; fetch it (`hf download owner/name --revision 000"),
        (["owner/name"], "owner/name: no such folder, and a hub id needs a commit"),
        (["", "--judge", ON_THE_HUB], f"judge: {ON_THE_HUB}: not on this machine; fetch it (`hf download owner/name"),
        (["", "--data", "absent.csv"], "/absent.csv: no such file; name a CSV"),
        (["", "--method", "best"], "argument --method: invalid choice"),
        (["", "--prefer", "nan"], "prefer: "),
        (["", "--model", "qwen3-4b"], "MODEL: is given twice, as "),
        (["qwen3-4b", "--judge", "phrases"], "--judge: only of a model of your own; qwen3-4b has its judge"),
    ],
)
def test_what_is_not_here_is_one_line_with_its_fix(own, given, expected, capsys):
    with pytest.raises(SystemExit) as stop:
        plan_command.main([given[0] or str(own), *given[1:]])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and expected in line
    assert "papermill_params" not in line and ".yaml" not in line


def test_a_gguf_file_has_the_plan_of_the_model_that_it_was_made_from(own, tmp_path, capsys, monkeypatch):
    path = save_random_gguf(tmp_path / "file.gguf")
    made_from = planned(capsys, tmp_path / "file", "--data", tmp_path / "prompts.csv")
    monkeypatch.chdir(tmp_path)
    for name in (path, "file.gguf", f"file.gguf@sha256:{file_digest(path)}"):
        printed = planned(capsys, name, "--data", tmp_path / "prompts.csv")
        assert row_of(printed, "LLM-VA-R") == row_of(made_from, "LLM-VA-R")
        assert printed.split("memory")[1].split("stages")[0] == made_from.split("memory")[1].split("stages")[0]
        assert "float32" in printed and f"weights here already: {path}" in printed
    with pytest.raises(SystemExit):
        plan_command.main(["absent.gguf"])
    assert "absent.gguf: no such file" in capsys.readouterr().err


def test_a_hub_model_that_was_fetched_has_its_shape(own, monkeypatch):
    fetched = {"config.json": str(own / "config.json")}
    monkeypatch.setattr(shapes, "try_to_load_from_cache", lambda _, file, revision: fetched.get(file))
    assert shapes.find_shape(ON_THE_HUB, "MODEL") == shapes.read_shape(own)


@pytest.mark.parametrize("width, apart", [(8, " with this tiny model, so of no use for others"), (512, "")])
def test_a_measurement_here_is_what_the_plan_goes_by(width, apart):
    measured = Machine("CPU", 1e12, 1e10, 1e9, 0.123, "float32", 2)
    shape = TOY.model_copy(update={"width": width})
    assert choose_machine("here", None, shape, "float32", 2) == (measured, f"measured now{apart}")
    given, source = choose_machine("here", 0.5, shape, "float32", 2)
    assert (given.efficiency, given.flops, source) == (0.5, 1e12, "given")


# Sizes by hand


def test_the_memory_is_that_computed_by_hand():
    params = load_params("tiny-llama")
    assert (TOY.matrices, TOY.parameters, TOY.cache_bytes("float32")) == (1232, 1312, 64)
    memory = Plan(params, TOY, TOY, TOY_MACHINE, TEN_ROWS).memory()
    assert memory["model"] == memory["unedited copy, which judges the language"] == memory["judge"] == 1312 * 4
    # 256 prompts of 110 + 32 tokens.
    assert memory["keys and values of a batch"] == 256 * 142 * 64
    assert memory["logits of a batch"] == 2 * 256 * 32 * 10 * 4
    assert Plan(params, TOY, None, TOY_MACHINE, TEN_ROWS).memory()["judge"] == 0


def test_the_memory_of_the_cpu_is_that_computed_by_hand(monkeypatch):
    monkeypatch.setattr(plan, "NEUTRAL_TOKENS", 100)
    # A block reads 8 + 16 numbers and writes 8 + 8; of neutral text only what is read is kept.
    activations = 4 * 2 * (10 * 40 + 100 * 24)
    originals = 2 * (8 * 8 + 8 * 16) * 4
    assert Plan(load_params("tiny-llama"), TOY, None, TOY_MACHINE, TEN_ROWS).host_memory() == activations + originals


@pytest.mark.parametrize(
    # 30 rounds of the loop and 2 x 5 of its candidates; 2 x 17 of LLM-VA-R.
    "method, rounds, activations",
    [("", 74, 1600), ("LLM-VA-R", 34, 0), ("LLM-VA", 40, 1600)],
)
def test_the_disk_is_that_computed_by_hand(method, rounds, activations):
    disk = Plan(load_params("tiny-llama"), TOY, TOY, TOY_MACHINE, TEN_ROWS, method).disk()
    # 10 rows of 4 sublayers and the final stream, 8 numbers each; of each sublayer 2 x (8 + 16) numbers, twice.
    assert disk == {
        "weights, fetched": 2 * 1312 * 4, "activations": activations, "vectors and edits": rounds * 2 * 4 * 48 * 4,
    }  # fmt: skip


def test_weights_are_here_when_every_shard_is(tmp_path, monkeypatch):
    assert not shapes.is_here("owner/name") and not shapes.is_here(ON_THE_HUB)
    monkeypatch.setattr(shapes, "local_folder", lambda source: tmp_path)
    (tmp_path / "config.json").touch()
    assert not shapes.is_here(ON_THE_HUB)
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "one.safetensors").touch()
    # An interrupted download leaves some of the shards.
    assert not shapes.is_here(ON_THE_HUB)
    (tmp_path / "two.safetensors").touch()
    assert shapes.is_here(ON_THE_HUB)


def test_weights_that_one_device_cannot_hold_are_told():
    params = load_params("phi-4")
    model, judge = (Shape(**value) for value in load_shapes("phi-4").values())
    machine = Machine("H100", *machines.GPUS["H100"], 0.35)
    lines = "\n".join(plan_command._lines(Plan(params, model, judge, machine, expect_amounts(params))))
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
        plan_command.main(arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {expected}")


# Clusters


def test_a_plan_says_what_to_ask_a_cluster_for(capsys):
    printed = planned(capsys, "llama-3.1-8b", "--gpu", "H100")
    (line,) = [line for line in printed.splitlines() if "LAUNCH=" in line]
    plan_hours = next(line for line in printed.splitlines() if line.startswith("in all")).split()[-2]
    asked = re.search(r"LAUNCH='srun -n1 -c8 --mem=(\d+)G --gpus=1 --time=(\d+):(\d\d):00'", line)
    hours = int(asked[2]) + int(asked[3]) / 60
    # Twice the plan's, to a minute and the printed decimal.
    assert hours == pytest.approx(2 * float(plan_hours), abs=0.12)
    # A study of two models of 8 billion keeps activations and originals, some 17 GB, on the CPU.
    assert 20 < int(asked[1]) < 40


def test_a_model_that_one_gpu_cannot_hold_asks_for_more_and_a_cpu_for_none(capsys, own, measured):
    assert "--gpus=2" in planned(capsys, "qwen3-32b", "--gpu", "H100")
    assert "--gpus" not in planned(capsys, own)
