"""Benchmarks: both ways do the same work, take turns, and leave the model as it was; no test asserts a time."""

import os
from types import SimpleNamespace

import numpy
import pandas
import pytest
import torch
from test_export import log_of

from llmva.core import paths
from llmva.core.provenance import random_generator
from llmva.edits.log import EditLog
from llmva.engines import greedy
from llmva.engines.drafts import Drafts
from llmva.models.chat_model import encode_chats
from llmva.performance import timing
from llmva.performance.benchmarks import generation, gpu, look, loop, replies, table
from llmva.performance.benchmarks.memory import benchmark_memory
from llmva.performance.benchmarks.solver import benchmark_solver, draw_features
from llmva.performance.machines import Machine
from llmva.performance.sizes import Shape

RUNS = {"runs": 2}


def test_the_ratio_is_the_median_over_runs_that_take_turns(monkeypatch):
    # A clock that the two ways move themselves: 6, 2 and 10 against 2, 2 and 2.
    clock, order = [0.0], []
    slow = iter([1, 6, 2, 10])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def slower():
        order.append("slower")
        clock[0] += next(slow)

    def faster():
        order.append("faster")
        clock[0] += 2

    assert timing.ratio_of_times(slower, faster, runs=3) == 3
    assert order == ["slower", "faster", "slower", "faster", "faster", "slower", "slower", "faster"]


def test_both_solvers_are_measured_and_compared():
    measured = benchmark_solver(40, 80, ratio=1.0, massive=False, runs=2)
    assert measured["ratio"] > 0 and measured["newton_converged"] == 1
    assert measured["degrees_apart"] < 1 and measured["degrees_converged"] <= measured["degrees_apart"]


def test_massive_dimensions_are_planted():
    features, labels = draw_features(200, 50, 2, random_generator(0, "test"), massive=True)
    sizes = features.std(axis=0)
    assert sizes[:2].min() > 20 * sizes[2:].max() and set(labels.ravel()) == {-1, 1}


def test_capture_inside_generation_sees_the_bits_of_a_separate_pass(llama, prompts):
    ratio, same = generation.benchmark_capture(llama, prompts, **RUNS, batch_size=3, max_new_tokens=3)
    assert same and ratio > 0


def test_serving_is_measured_on_the_edited_model_and_leaves_no_trace(llama, prompts, monkeypatch):
    log, before = log_of(llama), {name: weight.clone() for name, weight in llama.model.state_dict().items()}
    seen = []
    answer = generation._answer_at_length

    def watched(chat_model, *arguments):
        seen.append(not torch.equal(chat_model.writers["mlp.00"].weight, before["model.layers.0.mlp.down_proj.weight"]))
        answer(chat_model, *arguments)

    monkeypatch.setattr(generation, "_answer_at_length", watched)
    assert generation.benchmark_edited(llama, log, log, prompts, **RUNS, max_new_tokens=3) > 0
    assert seen == [False, True, False, True, True, False]
    seen.clear()
    assert generation.benchmark_edited(llama, EditLog(), log, prompts, **RUNS, max_new_tokens=3) > 0
    assert seen == [False] * 6
    for steered in generation.list_steerings(llama).values():
        assert generation.benchmark_steering(llama, steered, prompts, **RUNS, max_new_tokens=3) > 0
    assert all(torch.equal(weight, before[name]) for name, weight in llama.model.state_dict().items())


def test_every_reply_has_the_full_length(llama, prompts, monkeypatch):
    made = []
    generate = llama.model.generate
    monkeypatch.setattr(llama.model, "generate", lambda **options: made.append(generate(**options)))
    generation._answer_at_length(llama, prompts, 7)
    longest = max(map(len, generation.encode_chats(llama.tokenizer, prompts)))
    assert made[0].shape == (len(prompts), longest + 7)


def test_a_rate_is_struck_where_the_control_is_off(monkeypatch):
    monkeypatch.setattr(generation, "run_llm_va_r", lambda study: None)
    monkeypatch.setattr(generation, "read_loop", lambda stage: SimpleNamespace(
        log=SimpleNamespace(at_iteration=lambda _: "edits"), choice=SimpleNamespace(best_iteration=1)))  # fmt: skip
    monkeypatch.setattr(generation, "benchmark_steering", lambda *_, **__: 1.1)
    monkeypatch.setattr(generation, "list_steerings", lambda _: {"hooks": None})
    limits = SimpleNamespace(slug="toy", generation=SimpleNamespace(max_new_tokens=3))
    study = SimpleNamespace(params=limits, validation={"prompt": pandas.Series(["hi"])}, chat_model=None)
    for control, kept in ((1.004, True), (0.985, False)):
        ratios = {"edits": 0.992}
        monkeypatch.setattr(
            generation, "benchmark_edited", lambda _, log, other, ratios=ratios, control=control, **__: (
                ratios.get(log, control) if isinstance(log, str) else control))  # fmt: skip
        rows = {name: (value, goal) for name, _, value, goal, _ in generation.serving_rows(study, {"runs": 1})}
        assert rows["original over original, throughput"] == (control, "")
        value, goal = rows["edited over original, throughput"]
        assert (value, goal) == (0.992, ">=0.99") if kept else (numpy.isnan(value) and goal == "")


def test_engines_are_compared_with_drafts_as_they_were(llama, prompts):
    drafts, limits = Drafts(), {"max_new_tokens": 3, "batch_size": 3}
    greedy.respond(llama, prompts[:2], **limits, drafts=drafts)
    before = {prompt: list(known) for prompt, known in drafts._known.items()}
    for known in (None, drafts):
        ratio, texts, same = replies.benchmark_engine(llama, prompts, known, **RUNS, **limits)
        assert ratio > 0 and texts == 1 and same
    assert {prompt: drafts._known[prompt] for prompt in before} == before


def test_what_looks_repeat_is_counted(tmp_path):
    for number, said in enumerate((["yes", "no"], ["yes", "yes"], ["yes", "no"])):
        folder = tmp_path / "iterations" / f"look{number}"
        folder.mkdir(parents=True)
        pandas.DataFrame({"id": ["a", "b"], "response": said}).to_csv(folder / "responses.csv", index=False)
        (folder / "metrics.json").write_text("{}")
        os.utime(folder / "metrics.json", (number, number))
    study = SimpleNamespace(folder=tmp_path, params=SimpleNamespace(slug="toy"))
    shares = [row[2] for row in replies.count_new(study)]
    # Six replies: a says one thing, b two, of which the last look repeats one.
    assert shares == pytest.approx([3 / 6, 3 / 6])


def test_the_parts_of_a_look_add_up_and_passes_belong_to_whoever_asked(llama, prompts):
    with look.timed_parts(llama.model) as parts:
        greedy.write_replies(llama, encode_chats(llama.tokenizer, prompts), max_new_tokens=3, batch_size=5)
        assert set(parts) == {look.REPLIES, look.PREFILL, look.DECODING}
        llama.model(torch.tensor([[1, 2]]))
    assert parts[look.OTHER] > 0 and min(parts.values()) > 0
    before = dict(parts)
    greedy.respond(llama, prompts, max_new_tokens=3, batch_size=5)
    assert parts == before


def test_memory_is_measured_over_a_whole_iteration(family_folders):
    # Little of it is weights in so small a model; two copies of them are there at least.
    assert benchmark_memory(str(family_folders["llama"]), blocks=1, prompts=40) > 1


def test_an_iteration_at_the_size_of_a_real_model_is_set_against_its_floor(monkeypatch):
    shape = Shape(
        blocks=2, width=64, heads=4, key_value_heads=2, head_width=16, inner_width=96, vocabulary=128, tied=False
    )
    machine = Machine("slow", 1e9, 1e9, 1e9, 0.5)
    found = gpu.benchmark_gpu(shape, machine, device="cpu", scale=0.05)
    stages = [found[name] for name in ("replies", "verdicts", "vectors", "edits")]
    assert min(stages) > 0 and found["ratio"] == pytest.approx(sum(stages) / found["floor"])
    # 36 prompts: 6 tokens and 6 new ones, and 35 and 2 for the guard, at the peak itself.
    ideal = Machine("slow", 1e9, 1e9, 1e9, 1.0)
    floor = sum(ideal.answering_seconds(shape, 36, *tokens, 36, "bfloat16") for tokens in ((6, 6), (35, 2)))
    assert found["floor"] == pytest.approx(floor)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "machine_here", lambda shape: machine)
    monkeypatch.setattr(gpu, "benchmark_gpu", lambda shape, machine: found)
    shown = list(gpu.gpu_rows(None, table.SIZES))
    assert shown[0][2:4] == (found["ratio"], "<=4") and len(shown) == 6
    assert shown[-1][2] == found[gpu.UNSHARED] / found["verdicts"]


def test_without_a_gpu_the_table_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ((name, setting, ratio, goal, runs),) = gpu.gpu_rows(None, table.SIZES)
    assert name.startswith("GPU") and setting.endswith("no GPU was to be had") and numpy.isnan(ratio)
    assert table._met(ratio, goal) == "" and runs == 0


def test_the_loop_is_measured_with_the_study_s_threads_and_with_all_of_them(monkeypatch):
    used = []
    monkeypatch.setattr(loop.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(loop, "benchmark_loop", lambda study, **sizes: used.append(torch.get_num_threads()) or 4.0)
    study = SimpleNamespace(params=SimpleNamespace(slug="toy"))
    found = list(loop.loop_rows(study, table.SIZES))
    assert used == [1, 1, 2, 2] and torch.get_num_threads() == 1
    assert len(list(loop.loop_rows(study, {**table.SIZES, "threads": 1}))) == 2
    assert [row[1][-1] for row in found] == ["1", "1", "2", "2"]
    assert [row[2:] for row in found] == [(4.0, ">=8", 5), (4.0, ">=8", 3)] * 2


GOALS = [(10, ">=10", "True"), (9, ">=10", "False"), (1.04, "<=1.03", "False"), (0.009, "<0.01", "True")]


@pytest.mark.parametrize("value, goal, met", [*GOALS, (0.01, "<0.01", "False"), (3, "", "")])
def test_goals_are_read_as_they_are_written(value, goal, met):
    assert table._met(value, goal) == met


class Measured:
    """A study that measures nothing; it counts how often it was asked."""

    def __init__(self, folder):
        self.folder, self.asked = folder, 0

    def identity(self, *fields):
        return {"fields": fields}

    def rows(self, _, sizes):
        self.asked += 1
        yield "a", "b, c", 12.3456, ">=10", 3
        yield "d", "e", float("nan"), "<=4", 0
        yield "f", "g", 2.0, "", 9


@pytest.fixture
def measured(tmp_path, monkeypatch):
    study = Measured(tmp_path / "runs" / "toy")
    monkeypatch.setattr(paths, "TABLES", tmp_path / "tables")
    monkeypatch.setitem(table.BENCHMARKS, "toy", study.rows)
    return study


def test_the_table_has_its_columns_and_three_digits(measured, tmp_path):
    found = table.run_benchmark(measured, "toy")
    assert found["ratio"].tolist()[::2] == [12.3, 2.0] and numpy.isnan(found["ratio"][1])
    table.write_performance(measured, found)
    written = pandas.read_csv(tmp_path / "tables" / "performance.csv", keep_default_na=False)
    assert list(written) == table.PERFORMANCE_COLUMNS and written["ratio"].tolist() == ["12.3", "", "2.0"]
    assert written["met"].tolist() == ["True", "", ""] and written["runs"].tolist() == [3, 0, 9]
    assert (measured.folder / table.STAGE / "performance.csv").read_text() == (
        tmp_path / "tables" / "performance.csv"
    ).read_text()


def test_what_was_measured_is_measured_again_when_the_code_or_the_machine_changes(measured, monkeypatch):
    first = table.run_benchmark(measured, "toy")
    assert table.run_benchmark(measured, "toy").equals(first) and measured.asked == 1
    monkeypatch.setattr(table, "code_digest", lambda: "other code")
    table.run_benchmark(measured, "toy")
    monkeypatch.setattr(table, "_machine", lambda: "another machine")
    table.run_benchmark(measured, "toy")
    table.run_benchmark(measured, "toy", {**table.SIZES, "runs": 1})
    assert measured.asked == 4
