"""`make steer`: a direction from pairs of system prompts, the file it leaves, and what is refused in one line."""

import copy
import json
import shutil

import gguf
import numpy
import pandas
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from conftest import save_random_model
from gguf_models import save_random_gguf

import llmva
from llmva.aligned_model.steering import CONTROL_VECTOR, DIRECTION
from llmva.commands import steer
from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.provenance import file_digest
from llmva.core.store import read_manifest
from llmva.engines.greedy import respond
from llmva.models.chat_model import ChatModel, load_model
from llmva.steering.runtime.boundary import Boundary
from llmva.steering.runtime.control_vector import export_control_vector
from llmva.steering.runtime.saved import read_steering, save_steering
from llmva.steering.runtime.steering import RuntimeSteering

WIDTH = 48


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steer")
    save_random_model(folder / "model")
    rows = [(f"what is rope number {number}?", "be good to people.", "be bad to people.") for number in range(20)]
    pandas.DataFrame(rows, columns=["prompt", "aligned", "malicious"]).to_csv(folder / "pairs.csv", index=False)
    return folder


@pytest.fixture
def run(root, monkeypatch, capsys):
    """Run the command with some options; return its exit status and what it printed on standard error."""
    monkeypatch.setattr(paths, "RUNS", root / "runs")

    def call(*options, **changes):
        given = {"model": root / "model", "pairs": root / "pairs.csv", "max-new-tokens": 6, "threads": 1} | changes
        words = [text for name, value in given.items() for text in (f"--{name}", str(value))]
        with pytest.raises(SystemExit) as ended:
            steer.main([*words, *options])
        return ended.value.code, capsys.readouterr()

    return call


@pytest.mark.parametrize("method", ["StMP", "swfc"])
def test_the_command_leaves_a_direction_a_report_and_the_lines_that_apply_it(run, root, method):
    out = root / f"out-{method}"
    status, printed = run("--layers", "2", method=method, out=out, alphas="1 2")
    assert status == 0, printed.err
    names = {path.name for path in out.iterdir()}
    assert names >= {DIRECTION, "report.html", "README.md", "cells.csv", "manifest.json"}
    assert (CONTROL_VECTOR in names) == (method == "swfc")
    card, report = (out / "README.md").read_text(), (out / "report.html").read_text()
    assert "with read_steering" in card and "<svg" in report
    assert "rope number" not in card + report
    chat_model = load_model(str(root / "model"))
    steering = read_steering(out / DIRECTION, chat_model)
    assert steering.layer == 2 and steering.alpha in (1.0, 2.0)
    with steering.applied(chat_model):
        respond(chat_model, ["hi"], max_new_tokens=3, batch_size=1)
    assert steering.tally.tokens > 0


def test_a_gguf_file_is_steered_and_the_manifest_names_its_bytes(run, root, tmp_path):
    path = save_random_gguf(tmp_path / "model.gguf")
    assert run("--layers", "2", model=path, method="SwFC", out=tmp_path / "out", alphas="1")[0] == 0
    facts = read_manifest(tmp_path / "out")["facts"]
    assert facts["gguf"]["sha256"] == file_digest(path) and facts["study"]["model"] == str(path)
    assert read_steering(tmp_path / "out" / DIRECTION, load_model(str(path))).layer == 2


def test_the_lines_of_the_card_work_on_a_model_that_was_loaded_otherwise(run, root):
    out = root / "out-lines"
    assert run("--layers", "1", out=out, alphas="1", method="SwFC")[0] == 0
    loaded = load_model(str(root / "model"))
    chat_model = ChatModel("", loaded.model, loaded.tokenizer)
    inputs = loaded.tokenizer("how do i cut a rope", return_tensors="pt")
    with read_steering(out / DIRECTION, chat_model).applied(chat_model):
        steered = loaded.model(**{"input_ids": inputs["input_ids"]}).logits
    assert not torch.equal(steered, loaded.model(**{"input_ids": inputs["input_ids"]}).logits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "StXX"}, "method: is 'StXX'"),
        ({"alphas": "much"}, "alphas: is 'much'"),
        ({"alphas": "nan"}, "alphas"),
        ({"layers": "9"}, "layers: 9 is not there"),
        ({"layers": "1.5"}, "layers: is '1.5'; write different whole numbers"),
        ({"layers": "2 2"}, "layers: is '2 2'"),
        ({"layers": ""}, "--layers: is empty; write a value, or leave it out"),
        ({"layers": "0"}, "steer: layers.0: is 0; input should be greater than 0"),
        ({"alphas": "1 1.0"}, "alphas: is '1 1.0'"),
        ({"alphas": " "}, "--alphas: is empty; write a value, or leave it out"),
        ({"alphas": "1e300"}, "alphas: is '1e300'"),
        ({"pairs": "no\rsuch.csv"}, "no?such.csv: no such file"),
        ({"pairs": "x" * 300}, "File name too long"),
        ({"threads": 100000}, "threads: is 100000"),
        ({"pairs": "."}, "is a folder; name a CSV"),
        ({"pairs": "none.csv"}, "no such file"),
        ({"model": "none"}, "none: no such model folder"),
    ],
)
def test_bad_options_are_one_line_and_status_2(run, root, changes, message):
    status, printed = run(out=root / "never", **changes)
    assert status == 2 and message in printed.err.splitlines()[-1]
    assert not (root / "never").exists()


def test_a_folder_that_holds_something_else_is_left_as_it_is(run, root):
    out = root / "thesis"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    status, printed = run("--layers", "2", out=out, alphas="1")
    assert status == 2 and "holds other files (thesis.txt)" in printed.err.splitlines()[-1]
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    link = root / "link"
    link.symlink_to(root / "elsewhere")
    assert "is a link or a device" in run("--layers", "2", out=link, alphas="1")[1].err
    # What make align left for the same model is something else too.
    aligned = root / "aligned"
    (aligned / "adapter").mkdir(parents=True)
    (aligned / "edit_log.safetensors").write_bytes(b"log")
    manifest = {"files": {"edit_log.safetensors": ""}, "facts": {"study": {"model": str(root / "model")}}}
    (aligned / "manifest.json").write_text(json.dumps(manifest))
    assert run("--layers", "2", out=aligned, alphas="1")[0] == 2 and (aligned / "edit_log.safetensors").is_file()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
            "{{ messages[0].content }}",
            "takes no system prompt (System role not supported)",
        ),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "leaves out system prompts"),
    ],
)
def test_a_model_that_reads_no_system_prompt_is_refused_before_it_answers(run, root, template, message):
    folder = root / f"model-{len(template)}"
    if not folder.exists():
        shutil.copytree(root / "model", folder)
    (folder / "chat_template.jinja").write_text(template)
    status, printed = run("--layers", "2", model=folder, out=root / "never", alphas="1")
    assert status == 2 and message in printed.err.splitlines()[-1] and not (root / "never").exists()


# In Python


@pytest.fixture
def in_memory(root, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", root / "runs")
    chat_model, pairs = load_model(str(root / "model")), pandas.read_csv(root / "pairs.csv")
    return chat_model, lambda **more: llmva.steer(
        chat_model.model, chat_model.tokenizer, pairs,
        **{"method": "swfc", "alphas": [8], "layers": [1, 2], "max_new_tokens": 6, **more},
    )  # fmt: skip


def test_a_model_in_memory_is_steered_as_the_command_steers_its_folder(in_memory, run, root):
    chat_model, steer = in_memory
    weights = copy.deepcopy(chat_model.model.state_dict())
    result = steer()
    assert run("--layers", "1,2", method="SwFC", out=root / "by-command", alphas="8")[0] == 0
    by_command = read_steering(root / "by-command" / DIRECTION, chat_model)
    assert (result.steering.layer, result.steering.alpha) == (by_command.layer, by_command.alpha)
    plain = respond(chat_model, ["what is a rope?"], max_new_tokens=6, batch_size=1).texts
    texts = []
    for context in (result.applied(), by_command.applied(chat_model)):
        with context:
            texts.append(respond(chat_model, ["what is a rope?"], max_new_tokens=6, batch_size=1).texts)
    assert texts[0] == texts[1] != plain
    assert respond(chat_model, ["what is a rope?"], max_new_tokens=6, batch_size=1).texts == plain
    assert all(torch.equal(value, weights[name]) for name, value in chat_model.model.state_dict().items())
    assert "<iframe" in result.report()._repr_html_() and len(result.cells) > 2
    saved = result.save(root / "by-python")
    assert sorted(path.name for path in saved.iterdir()) == sorted(
        path.name for path in (root / "by-command").iterdir()
    )
    assert str(root) not in (saved / "README.md").read_text()


def test_a_second_call_searches_nothing(in_memory, monkeypatch):
    _, steer = in_memory
    steer()
    monkeypatch.setattr("llmva.study.runtime.sweep.respond", None, raising=False)
    again = steer()
    assert again._stage.hit


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"method": "best"}, "best"), ({"layers": [9]}, "layers: 9 is not there"), ({"seed": -1}, "seed"),
        ({"method": None}, "method: is None"), ({"alphas": 2.0}, "alphas: is 2.0; give a list of numbers"),
        ({"alphas": "1 2"}, "alphas: is '1 2'"), ({"alphas": []}, r"alphas: is \[\]"), ({"layers": 2}, "layers: is 2;"),
        ({"layers": [True]}, r"layers: is \[True\]"), ({"batch_size": "4"}, "batch_size: is '4'"),
    ],
)  # fmt: skip
def test_a_bad_option_in_python_is_one_line(in_memory, more, said):
    _, steer = in_memory
    with pytest.raises(InputError, match=said):
        steer(**more)


def test_pairs_without_a_column_are_told(in_memory, root):
    chat_model, _ = in_memory
    with pytest.raises(InputError, match="pairs: no column 'malicious'"):
        llmva.steer(chat_model.model, chat_model.tokenizer, pandas.DataFrame({"prompt": ["a"], "aligned": ["b"]}))


def test_pairs_are_texts_and_numbers_may_be_of_numpy(in_memory, root):
    chat_model, steer = in_memory
    table = pandas.read_csv(root / "pairs.csv")
    for pairs, said in (
        (None, "pairs: is a NoneType; give a DataFrame"),
        (table.assign(aligned=[["be good"]] * len(table)), "pairs: aligned: of type list in data row 1; write a text"),
        (table.assign(prompt=None), "pairs: prompt: empty in data row 1"),
    ):
        with pytest.raises(InputError, match=said):
            llmva.steer(chat_model.model, chat_model.tokenizer, pairs)
    steered = steer(layers=numpy.array([1, 2]), alphas=numpy.array([8.0]), seed=numpy.int64(0))
    assert steered.study.params == steer().study.params


def test_without_a_model_the_command_says_how_it_is_called(capsys):
    with pytest.raises(SystemExit) as ended:
        steer.main([])
    assert ended.value.code == 2 and "make steer MODEL=" in capsys.readouterr().err


# The file


@pytest.fixture
def steering():
    vector = numpy.random.default_rng(0).standard_normal(WIDTH)
    unit = (vector / numpy.linalg.norm(vector)).astype(numpy.float32)
    return RuntimeSteering(Boundary(unit, 0.25, 1.5, 0.125, -0.5, 0.3), "StMP", 1.5, 2)


def save(path, steering, chat_model):
    save_steering(path, steering, {"model": "other", "revision": "", "key": "k"}, chat_model)


def test_a_steering_is_read_as_it_was_written(steering, tmp_path, llama):
    save(tmp_path / DIRECTION, steering, llama)
    again = read_steering(tmp_path / DIRECTION)
    assert (again.boundary.direction == steering.boundary.direction).all()
    for name in ("threshold", "positive_mean", "positive_deviation", "negative_mean", "negative_deviation"):
        assert getattr(again.boundary, name) == getattr(steering.boundary, name)
    assert (again.method, again.alpha, again.layer, again.position) == ("StMP", 1.5, 2, "all")


def spoil(path, kind):
    tensors = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
        return
    if kind == "nan":
        tensors["direction"][3] = numpy.nan
    if kind == "other file":
        metadata = {"format": "pt"}
    if kind == "number missing":
        del tensors["threshold"]
    if kind == "other version":
        metadata["format_version"] = "2"
    if kind == "two thresholds":
        tensors["threshold"] = numpy.zeros(2)
    if kind == "float16":
        tensors["direction"] = tensors["direction"].astype(numpy.float16)
    if kind == "negative deviation":
        tensors["positive_deviation"] = numpy.array(-5.0)
    if kind == "nested words":
        metadata["steering"] = "[" * 100_000
    if kind == "bfloat16":
        bare = {name: torch.from_numpy(numpy.ascontiguousarray(value)) for name, value in tensors.items()}
        safetensors.torch.save_file({**bare, "direction": bare["direction"].bfloat16()}, path, metadata)
        return
    if kind == "longer":
        tensors["direction"] *= 2
    if kind == "no words":
        metadata["steering"] = "StMP"
    if isinstance(kind, dict):
        metadata["steering"] = json.dumps({**json.loads(metadata["steering"]), **kind})
    safetensors.numpy.save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "damaged"),
        ("nan", "direction: missing or not finite"),
        ("other file", "is no steering"),
        ("number missing", "threshold: missing or not finite"),
        ("other version", "is no steering"),
        ("two thresholds", "threshold: has the shape"),
        ("no words", "steering: cannot be read"),
        ("float16", "direction: is no float32"),
        ("longer", "direction: is no float32"),
        ("bfloat16", "damaged"),
        ("negative deviation", "positive_deviation: is negative"),
        ("nested words", "steering: cannot be read"),
        ({"alpha": -3.0}, "alpha: is -3.0"),
        ({"alpha": 10**400}, "alpha: is 1000"),
        ({"method": "StXX"}, "method: is 'StXX'"),
        ({"alpha": "much"}, "alpha: is 'much'"),
        ({"alpha": numpy.nan}, "alpha: is nan"),
        ({"layer": 1.5}, "layer: is 1.5"),
        ({"position": "first"}, "position: is 'first'"),
    ],
)
def test_a_spoilt_file_is_refused_in_one_line(steering, tmp_path, llama, kind, message):
    path = tmp_path / DIRECTION
    save(path, steering, llama)
    spoil(path, kind)
    with pytest.raises(InputError, match=message) as error:
        read_steering(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_file_of_another_model_or_width_is_refused(steering, tmp_path, llama):
    path = tmp_path / DIRECTION
    save(path, steering, llama)
    # However the model was loaded, in whatever type.
    half = ChatModel("", copy.deepcopy(llama.model).to(torch.bfloat16), llama.tokenizer)
    assert read_steering(path, half).layer == 2
    other = ChatModel("", copy.deepcopy(llama.model), llama.tokenizer)
    with torch.no_grad():
        other.model.model.layers[1].mlp.down_proj.weight.mul_(1.1)
    with pytest.raises(InputError, match="was made for other, whose weights"):
        read_steering(path, other)
    # As long a direction as the narrow one has, and still of unit length.
    shorter = steering.boundary.direction[:-1] / numpy.linalg.norm(steering.boundary.direction[:-1])
    save(path, RuntimeSteering(Boundary(shorter, 0.0, 1, 1, 0, 1), "StMP", 1.0, 2), llama)
    with pytest.raises(InputError, match="has 47 numbers"):
        read_steering(path, llama)
    save(path, RuntimeSteering(steering.boundary, "StMP", 1.0, 3), llama)
    with pytest.raises(InputError, match="layer: is 3"):
        read_steering(path, llama)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_steering(tmp_path / "none.safetensors")


# llama.cpp


def test_a_control_vector_is_the_step_behind_the_same_block(steering, tmp_path):
    swfc = RuntimeSteering(steering.boundary, "SwFC", 3.0, 3)
    export_control_vector(tmp_path / CONTROL_VECTOR, swfc, architecture="llama", width=WIDTH)
    reader = gguf.GGUFReader(tmp_path / CONTROL_VECTOR)
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    # Numbers are those of blocks, counted from 0: layer 3 is what block 2 writes.
    assert set(tensors) == {"direction.1", "direction.2"} and not tensors["direction.1"].any()
    numpy.testing.assert_allclose(tensors["direction.2"], 3.0 * 2.0 * steering.boundary.direction, rtol=1e-6)
    assert reader.fields["general.architecture"].contents() == "controlvector"
    assert reader.fields["controlvector.model_hint"].contents() == "llama"


@pytest.mark.parametrize(("method", "layer", "message"), [("StMP", 2, "only SwFC"), ("SwFC", 1, "layer: is 1")])
def test_what_is_no_constant_of_a_later_block_has_no_control_vector(steering, tmp_path, method, layer, message):
    with pytest.raises(InputError, match=message):
        export_control_vector(
            tmp_path / CONTROL_VECTOR,
            RuntimeSteering(steering.boundary, method, 1.0, layer),
            architecture="llama",
            width=WIDTH,
        )
    assert not (tmp_path / CONTROL_VECTOR).exists()
