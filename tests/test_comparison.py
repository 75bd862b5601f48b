"""Side by side: one base, its adapter on and off, and two conversations that do not mix."""

import json
import logging
import sys

import nbformat
import pandas
import pytest
import torch
from conftest import save_random_model
from test_export import log_of

from llmva.aligned_model.comparison import Comparison, open_aligned
from llmva.commands import standard_tasks as standard_utility
from llmva.commands.compare import main
from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.params import StudyParams, load_params
from llmva.core.store import run_stage
from llmva.edits.adapter import export_adapter
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog
from llmva.engines.greedy import respond
from llmva.models.chat_model import load_model
from llmva.models.sources import find_base

ASKED = ["how do i cut a rope?", "hi"]


def align_folder(tmp_path, *, edited=True):
    """Make what `make align` leaves, without a loop; return the folder, the model and the log."""
    folder = save_random_model(tmp_path / "model")
    params = StudyParams.checked(
        load_params("tiny-llama").model_dump()
        | {"slug": "toy", "model": str(folder), "generation": {"batch_size": 4, "max_new_tokens": 8}}
    )
    chat_model = load_model(str(folder))
    log = log_of(chat_model) if edited else EditLog()

    def compute(place):
        if edited:
            export_adapter(chat_model, log, place / "adapter")
        return {"study": params.model_dump()}

    return run_stage(tmp_path / "aligned", compute, parameters={}).folder, chat_model, log


def test_replies_are_those_of_the_original_and_of_the_edited_model(tmp_path):
    folder, chat_model, log = align_folder(tmp_path)
    replies = Comparison.of(folder).ask(ASKED)
    expected = {"original": respond(chat_model, ASKED, max_new_tokens=8, batch_size=2).texts}
    with EditedModel(chat_model.writers) as edited:
        edited.apply(log)
        expected["aligned"] = respond(chat_model, ASKED, max_new_tokens=8, batch_size=2).texts
    assert {name: replies[name].tolist() for name in replies} == expected
    assert expected["original"] != expected["aligned"]


def test_each_model_remembers_its_own_replies(tmp_path):
    comparison = Comparison.of(align_folder(tmp_path)[0])
    first = comparison.say("hi")
    second = comparison.say("and then?")
    for name, chat in comparison.chats.items():
        assert [turn["role"] for turn in chat] == ["user", "assistant"] * 2
        assert [turn["content"] for turn in chat] == ["hi", first[name].item(), "and then?", second[name].item()]
    comparison.reset()
    assert comparison.say("hi").equals(first)


def test_the_base_is_loaded_once(tmp_path, monkeypatch):
    folder, *_ = align_folder(tmp_path)
    loaded = []
    monkeypatch.setattr(
        "llmva.aligned_model.comparison.load_model", lambda *args, **kw: loaded.append(args) or load_model(*args, **kw)
    )
    comparison = Comparison.of(folder)
    before = [weight.clone() for weight in comparison.chat_model.model.parameters()]
    comparison.ask(ASKED)
    assert len(loaded) == 1
    assert all(map(torch.equal, before, comparison.chat_model.model.parameters()))


def test_the_command_writes_a_notebook_for_this_model(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    caplog.set_level(logging.WARNING, logger="papermill")
    folder, *_ = align_folder(tmp_path)
    with pytest.raises(SystemExit) as done:
        main([str(folder)])
    assert done.value.code == 0
    printed, opening = capsys.readouterr().out, f"open with: {sys.executable} -m jupyter lab "
    assert printed.startswith(opening) and not caplog.records
    written = printed.removeprefix(opening).strip()
    source = "\n".join(cell.source for cell in nbformat.read(written, as_version=4).cells)
    assert f'aligned = "{folder}"' in source and 'slug = "toy"' in source


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"study": 3}, "manifest.json: facts.study: is not what a run has written; restore the file"),
        ({"study": {"model": ["a"]}}, "manifest.json: facts.study: is not what"),
        ({"base": {"a": 1}}, "manifest.json: facts.base: is {'a': 1}, which is no base; restore the file"),
        ({"study": {"slug": "toy"}}, "manifest.json: "),
    ],
)
def test_a_manifest_with_odd_facts_is_one_line(tmp_path, facts, said):
    folder = align_folder(tmp_path)[0]
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"facts": manifest["facts"] | facts}))
    with pytest.raises(InputError) as caught:
        Comparison.of(folder)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_aligned_model_is_not_its_own_base(tmp_path):
    folder, _, log = align_folder(tmp_path)
    log.save(folder / "edit_log.safetensors", {})
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["facts"]["base"] = str(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for look in (Comparison.of, lambda place: load_model(str(place)), lambda place: find_base(str(place))):
        with pytest.raises(InputError, match="facts.base: is '.*, which is no base"):
            look(folder)


def test_a_damaged_adapter_is_not_compared(tmp_path):
    folder = align_folder(tmp_path)[0]
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"odd")
    said = "adapter/adapter_model.safetensors: is not as manifest.json beside it says"
    with pytest.raises(InputError, match=said):
        Comparison.of(folder)


def test_other_folders_are_refused(tmp_path, capsys):
    with pytest.raises(InputError, match="aligned: not a folder that `make align` made"):
        open_aligned(tmp_path / "aligned")
    with pytest.raises(InputError, match="adapter: no adapter, since no edit was better than the original"):
        Comparison.of(align_folder(tmp_path, edited=False)[0])
    with pytest.raises(SystemExit) as done:
        main([])
    assert done.value.code == 2 and capsys.readouterr().err.startswith("error: OUT: not given")


@pytest.mark.parametrize("command", [main, standard_utility.main])
def test_without_an_adapter_a_command_ends_before_anything_is_fetched_or_written(
    tmp_path, monkeypatch, capsys, command
):
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr("llmva.measures.harness.load_standard_tasks", lambda: pytest.fail("tasks were fetched"))
    with pytest.raises(SystemExit) as done:
        command([str(align_folder(tmp_path, edited=False)[0])])
    printed = capsys.readouterr()
    assert done.value.code == 2 and not printed.out and not (tmp_path / "runs").exists()
    assert "adapter: no adapter, since no edit was better than the original" in printed.err


def test_without_a_network_the_standard_tasks_end_before_the_model_is_loaded(tmp_path, monkeypatch, capsys):
    folder, *_ = align_folder(tmp_path)

    def offline():
        raise InputError("standard tasks: cannot be fetched")

    monkeypatch.setattr("llmva.measures.harness.load_standard_tasks", offline)
    monkeypatch.setattr("llmva.aligned_model.comparison.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(SystemExit) as done:
        standard_utility.main([str(folder)])
    assert done.value.code == 2 and "error: standard tasks: cannot be fetched" in capsys.readouterr().err


def test_the_standard_tasks_are_measured_with_and_without_the_adapter(tmp_path, monkeypatch, capsys):
    folder, chat_model, log = align_folder(tmp_path)
    asked, loaded = [], []

    monkeypatch.setattr("llmva.measures.harness.load_standard_tasks", lambda: loaded.append("once") or "tasks")

    def measured(speaker, tasks, *, batch_size, most):
        assert tasks == "tasks"
        # Half as good with the adapter; one task that the original cannot do.
        replies = respond(speaker, ASKED, max_new_tokens=8, batch_size=2).texts
        asked.append((replies, batch_size, most))
        values = [0.8 / len(asked), 0.0]
        return pandas.DataFrame({"task": ["cola", "gsm"], "metric": ["f1", "accuracy"], "value": values, "n": 7})

    monkeypatch.setattr(standard_utility, "measure_standard_utility", measured)
    with pytest.raises(SystemExit) as done:
        standard_utility.main([str(folder), "--most", "7"])
    assert done.value.code == 0
    before = respond(chat_model, ASKED, max_new_tokens=8, batch_size=2).texts
    with EditedModel(chat_model.writers) as edited:
        edited.apply(log)
        after = respond(chat_model, ASKED, max_new_tokens=8, batch_size=2).texts
    assert asked == [(before, 4, 7), (after, 4, 7)] and loaded == ["once"]
    written = pandas.read_csv(f"{folder}-standard.csv").set_index("task")
    assert written.loc["cola", ["original", "aligned", "kept"]].tolist() == [0.8, 0.4, 0.5]
    assert written["kept"].isna().tolist() == [False, True]
    assert "0.4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "OUT: not given"),
        (["x", "--most", "0"], "MOST: is 0"),
        (["x", "--most", "all"], "--most: invalid int"),
    ],
)
def test_the_standard_tasks_ask_for_an_aligned_model(arguments, what, capsys):
    with pytest.raises(SystemExit) as done:
        standard_utility.main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert done.value.code == 2 and what in line
