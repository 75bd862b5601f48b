"""`make align` as a user meets it: an edited checkpoint, a log and a report, or one clear line and status 2."""

import subprocess
import sys

import matplotlib.pyplot
import nbformat
import pandas
import pytest
import torch
from conftest import prompt_table, save_random_model
from peft import PeftModel
from test_alignment import DigestJudge
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmva import align, aligned, paths
from llmva.edit_log import EditLog
from llmva.edits import EditedModel
from llmva.generation import respond
from llmva.models import ChatModel, load_model

QUICK = ["--iterations", "2", "--max-new-tokens", "4", "--threads", "1"]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Keep every stage of a test in its own folder, and run the notebook's cells in this process."""
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(align, "run_notebook", run_cells)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: matplotlib.pyplot.close("all"))
    return tmp_path / "runs"


def run_cells(source, target, parameters):
    """Run a notebook's code as papermill does, without a kernel: its parameters cell, the given ones, the rest."""
    first, *rest = [cell.source for cell in nbformat.read(source, as_version=4).cells if cell.cell_type == "code"]
    namespace = {}
    exec(first, namespace)
    namespace.update(parameters)
    for cell in rest:
        exec(cell, namespace)


@pytest.fixture
def two_classes(monkeypatch):
    """Let a random model's replies count as answers and refusals: as they are, they loop."""
    monkeypatch.setattr("llmva.study.PhraseJudge", DigestJudge)
    monkeypatch.setattr("llmva.degeneracy.is_looping", lambda reply: False)
    monkeypatch.setattr("llmva.degeneracy.is_empty", lambda reply: False)


@pytest.fixture
def own_prompts(tmp_path):
    path = tmp_path / "prompts.csv"
    prompt_table(40).to_csv(path, index=False, columns=["prompt", "label"])
    return path


def run(*arguments):
    with pytest.raises(SystemExit) as done:
        align.main([str(argument) for argument in arguments])
    return done.value.code


@pytest.mark.parametrize("method, name", align.SLUGS.items())
def test_a_users_model_and_prompts_give_adapter_checkpoint_log_and_report(
    runs, tmp_path, own_prompts, two_classes, capsys, method, name
):
    folder = save_random_model(tmp_path / "model", "qwen2")
    out = tmp_path / "aligned"
    options = ["--method", method, "--checkpoint", *QUICK]
    assert run("--model", folder, "--data", own_prompts, "--out", out, *options) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "adapter", "checkpoint", "edit_log.safetensors", "manifest.json", "report.html",
    ]  # fmt: skip
    log = EditLog.load(out / "edit_log.safetensors")
    original, aligned = load_model(str(folder)), AutoModelForCausalLM.from_pretrained(out / "checkpoint")
    with EditedModel(original.writers) as edited:
        edited.apply(log)
        for key, weight in aligned.state_dict().items():
            assert torch.equal(weight, original.model.state_dict()[key]), key
    assert AutoTokenizer.from_pretrained(out / "checkpoint").chat_template == original.tokenizer.chat_template
    report, card = (out / "report.html").read_text(), (out / "README.md").read_text()
    assert f"<h1>{name} on model</h1>" in report and "<td>toxic prompts answered</td>" in report
    assert "| toxic prompts answered |" in card and f"base_model: {folder}" in card
    for written in ("adapter/", "checkpoint/", "edit_log.safetensors", "README.md", "manifest.json"):
        assert f"<td>{written}</td>" in report
    assert capsys.readouterr().out.startswith(f"# model, aligned by {name}")


def test_nothing_that_is_written_quotes_a_prompt_or_a_reply(runs, tmp_path, own_prompts, two_classes):
    folder, out = save_random_model(tmp_path / "model"), tmp_path / "aligned"
    options = [*QUICK, "--max-new-tokens", "12"]
    assert run("--model", folder, "--data", own_prompts, "--out", out, *options) == 0
    written = "".join((out / name).read_text() for name in ("report.html", "README.md", "manifest.json"))
    (said,) = runs.glob("*/methods/original/responses.csv")
    replies = [reply for reply in pandas.read_csv(said)["response"].dropna() if len(reply) > 3]
    assert replies and not [reply for reply in replies if reply in written]
    assert not [prompt for prompt in pandas.read_csv(own_prompts)["prompt"] if prompt in written]


def test_the_adapter_answers_as_the_checkpoint_does(runs, tmp_path, own_prompts, two_classes, prompts):
    folder, out = save_random_model(tmp_path / "model", "gemma2"), tmp_path / "aligned"
    assert run("--model", folder, "--data", own_prompts, "--out", out, "--checkpoint", *QUICK) == 0
    base, checkpoint = load_model(str(folder)), load_model(str(out / "checkpoint"))
    adapted = ChatModel("adapted", PeftModel.from_pretrained(base.model, out / "adapter"), base.tokenizer)
    asked = {"prompts": prompts, "max_new_tokens": 12, "batch_size": 3}
    assert respond(adapted, **asked).texts == respond(checkpoint, **asked).texts
    with adapted.model.disable_adapter():
        assert respond(adapted, **asked).texts != respond(checkpoint, **asked).texts


def test_a_second_run_computes_nothing(runs, tmp_path, own_prompts, two_classes, monkeypatch):
    folder, out = save_random_model(tmp_path / "model"), tmp_path / "aligned"
    assert run("--model", folder, "--data", own_prompts, "--out", out, *QUICK) == 0
    monkeypatch.setattr("llmva.study.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    assert run("--model", folder, "--data", own_prompts, "--out", out, *QUICK) == 0


def test_an_interrupted_run_is_taken_up_again(runs, tmp_path, own_prompts, two_classes, monkeypatch):
    folder, out = save_random_model(tmp_path / "model"), tmp_path / "aligned"
    whole = aligned.write_report
    monkeypatch.setattr(aligned, "write_report", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        align.main(["--model", str(folder), "--data", str(own_prompts), "--out", str(out), *QUICK])
    assert not out.exists()
    monkeypatch.setattr(aligned, "write_report", whole)
    monkeypatch.setattr(DigestJudge, "judge", lambda *_: pytest.fail("judged again"))
    assert run("--model", folder, "--data", own_prompts, "--out", out, *QUICK) == 0
    assert (out / "report.html").is_file()


def bad_csv(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


ROWS = "".join(f"question {i},{'benign' if i % 2 else 'toxic'}\n" for i in range(30))
BAD_DATA = {
    "no label": ("prompt\nhi\n", "no column 'label'"),
    "no prompt": ("text,label\nhi,benign\n", "no column 'prompt'"),
    "other label": ("prompt,label\n" + ROWS + "x,unsure\n", "label: 'unsure' in data row 31"),
    "one class": ("prompt,label\n" + ROWS.replace("toxic", "benign"), "0 groups of toxic prompts"),
    "three rows": ("prompt,label\na,benign\nb,toxic\nc,toxic\n", "3 prompts"),
    "empty": ("", "is empty"),
    "header only": ("prompt,label\n", "0 prompts"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_prompts_get_one_line_and_nothing_is_written(runs, tmp_path, capsys, case):
    text, expected = BAD_DATA[case]
    data = bad_csv(tmp_path / "prompts.csv", text)
    model = save_random_model(tmp_path / "model")
    _expect_refusal(capsys, tmp_path, expected, "--model", model, "--data", data)


def test_prompts_that_are_not_utf8(runs, tmp_path, capsys):
    data = bad_csv(tmp_path / "prompts.csv", "prompt,label\nqué,benign\n", "latin-1")
    _expect_refusal(capsys, tmp_path, "not UTF-8", "--model", save_random_model(tmp_path / "model"), "--data", data)


def test_a_missing_prompt_file(runs, tmp_path, capsys):
    model = save_random_model(tmp_path / "model")
    _expect_refusal(capsys, tmp_path, "no such file", "--model", model, "--data", tmp_path / "absent.csv")


def test_a_missing_model_and_no_model_at_all(runs, tmp_path, capsys):
    _expect_refusal(capsys, tmp_path, "no such model folder", "--model", tmp_path / "absent")
    _expect_refusal(capsys, tmp_path, "MODEL: not given")


def test_a_negative_number(runs, tmp_path, capsys, own_prompts):
    model = save_random_model(tmp_path / "model")
    _expect_refusal(
        capsys, tmp_path, "batch_size: is -4", "--model", model, "--data", own_prompts, "--batch-size", "-4"
    )


def test_an_output_that_is_a_file_or_holds_something_else(runs, tmp_path, capsys, own_prompts):
    model = save_random_model(tmp_path / "model")
    (tmp_path / "out").write_text("mine")
    _expect_refusal(capsys, tmp_path, "is a file", "--model", model, "--data", own_prompts)
    (tmp_path / "out").unlink()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    _expect_refusal(capsys, tmp_path, "holds other files", "--model", model, "--data", own_prompts)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_an_output_that_cannot_be_written(runs, tmp_path, capsys, own_prompts, monkeypatch):
    model = save_random_model(tmp_path / "model")
    # Root may write anywhere, so the answer of the system is made up.
    monkeypatch.setattr("os.access", lambda path, mode: str(path) != str(tmp_path))
    _expect_refusal(capsys, tmp_path, "not writable", "--model", model, "--data", own_prompts)
    assert not runs.exists() or not any(runs.rglob("manifest.json"))


def _expect_refusal(capsys, tmp_path, expected, *arguments):
    before = sorted(str(path) for path in (tmp_path / "out").rglob("*"))
    assert run(*arguments, "--out", tmp_path / "out", *QUICK) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and expected in errors[0], errors
    assert sorted(str(path) for path in (tmp_path / "out").rglob("*")) == before


def test_as_a_command_it_exits_with_2_and_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "llmva.align", "--model", str(tmp_path / "absent")], capture_output=True, text=True
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_generated_prompts_stand_in_when_none_are_given(runs, tmp_path, two_classes):
    folder, out = save_random_model(tmp_path / "model"), tmp_path / "aligned"
    assert run("--model", folder, "--out", out, "--candidates", "20", *QUICK) == 0
    (outcomes,) = runs.glob("*/methods/original/outcomes.csv")
    tested = pandas.read_csv(outcomes).query("part == 'test'")
    assert set(tested["dataset"]) == {"seval_attack", "seval_risk", "orfuzzset", "nq"}
    assert (out / "report.html").is_file()


def test_a_model_that_cannot_be_edited_ends_with_a_reason(runs, tmp_path, own_prompts):
    folder, out = save_random_model(tmp_path / "model"), tmp_path / "aligned"
    assert run("--model", folder, "--data", own_prompts, "--out", out, *QUICK) == 0
    report, card = (out / "report.html").read_text(), (out / "README.md").read_text()
    assert "No gain" in report and "no sublayer could be edited" in report
    assert "there is nothing to load" in card and not (out / "adapter").exists()
    assert len(EditLog.load(out / "edit_log.safetensors")) == 0
