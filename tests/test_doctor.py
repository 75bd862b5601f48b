"""`llmva doctor`: a line for each thing, and for whatever is not as it should be what to do."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmva.commands import doctor
from llmva.edits.log import EditLog
from llmva.models.chat_model import load_tokenizer
from llmva.models.inspection import inspect_model


@pytest.fixture
def folder(family_folders, tmp_path):
    """A copy of a random Llama."""
    return shutil.copytree(family_folders["llama"], tmp_path / "model")


def set_values(folder, name, **changes):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite_template(folder, change):
    path = folder / "chat_template.jinja"
    path.write_text(change(path.read_text()))


def found_in(folder, level):
    """Return what was found at a level, with what to do."""
    return [f"{finding.what}; {finding.fix}" for finding in inspect_model(str(folder)) if finding.level == level]


def run(*arguments):
    with pytest.raises(SystemExit) as done:
        doctor.main([str(argument) for argument in arguments])
    return done.value.code


@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral", "phi3", "qwen2", "qwen3"])
def test_a_sound_model_is_ok_in_every_line(family_folders, family, monkeypatch):
    def load(*_, **__):
        raise AssertionError("weights are not to be loaded")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", load)
    assert found_in(family_folders[family], "warning") == found_in(family_folders[family], "problem") == []
    said = "\n".join(found_in(family_folders[family], "ok"))
    for part in ("2 layers of width 48", "4 sublayers can be edited", "takes a system prompt", "replies end with"):
        assert part in said


def _with_mixed_types(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"].to(torch.bfloat16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _end_unknown(folder):
    set_values(folder, "generation_config.json", eos_token_id=5)
    rewrite_template(folder, lambda text: text.replace("eos_token", "'###'"))


def _no_system(text):
    return "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + text


def _no_replies(text):
    return "{% if messages[1:] and messages[1]['role'] == 'assistant' %}{{ raise_exception('no') }}{% endif %}" + text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_with_mixed_types, "tensors stored as .*; say which with --dtype"),
        (_end_unknown, "which its template does not write behind one; add the token that ends a turn"),
        (lambda folder: rewrite_template(folder, _no_system), r"no system prompt \(no system turn\); `steer` and"),
        (lambda folder: rewrite_template(folder, lambda text: "{{ bos_token }}" + text), "begins with <s> twice"),
        (lambda folder: rewrite_template(folder, lambda text: text + "<think>\n"), "opens a thinking span"),
        (
            lambda folder: rewrite_template(folder, _no_replies),
            "fails on a chat with a reply, or ends it with nothing; `compare`",
        ),
    ],
)
def test_what_may_go_wrong_is_a_warning_with_what_to_do(folder, change, said):
    change(folder)
    (line,) = found_in(folder, "warning")
    assert re.search(said, line), line
    assert found_in(folder, "problem") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: set_values(folder, "config.json", model_type="odd"), "config.json cannot be read"),
        (lambda folder: set_values(folder, "config.json", quantization_config={"quant_method": "gptq"}), "quantised"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "no chat template"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"odd"), "model.safetensors cannot be read"),
        (lambda folder: set_values(folder, "config.json", num_attention_heads=0), "cannot be"),
        (lambda folder: set_values(folder, "config.json", hidden_size=-4), "llama: cannot be built"),
        (lambda folder: set_values(folder, "generation_config.json", eos_token_id="x"), "eos_token_id: is 'x', no id"),
        (lambda folder: set_values(folder, "generation_config.json", eos_token_id=-1), "eos_token_id: is -1, no id"),
        *(
            (lambda folder, kind=kind: (folder / "config.json").write_text(f'{{"model_type": "{kind}"}}'), kind)
            for kind in ("resnet", "perceiver", "sam", "idefics2_perceiver", "bark")
        ),
    ],
)
def test_what_cannot_work_is_a_problem_and_the_status_is_1(folder, capsys, change, said):
    change(folder)
    (line,) = found_in(folder, "problem")
    assert said in line
    assert run(folder) == 1
    assert f"PROBLEM  {line.removesuffix('; ')}" in capsys.readouterr().out


def test_settings_that_are_set_aside_are_named(folder):
    set_values(folder, "generation_config.json", num_beams=4, do_sample=True, repetition_penalty=1.2)
    assert any("do_sample, num_beams, repetition_penalty are set aside" in line for line in found_in(folder, "ok"))


def test_a_model_that_is_named_twice_is_one_line(folder, capsys):
    assert run(folder, "--model", folder.parent) == 2
    assert f"error: MODEL: is given twice, as {folder} and {folder.parent}; write one" in capsys.readouterr().err


def test_a_machine_alone_has_its_lines(capsys, monkeypatch):
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("cores; " in line for line in lines) and any("GB are free where runs are kept" in line for line in lines)
    assert not any("model: " in line for line in lines)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert run() == 1
    assert "not writable; change its permissions" in capsys.readouterr().out


def test_a_tokenizer_that_begins_where_its_template_does_not_is_told(folder):
    tokenizer = load_tokenizer(str(folder))
    rewrite_template(folder, lambda text: text.replace("{{ bos_token }}", "", 1))
    adds = tokenizer("Hello.")["input_ids"][:1] == [tokenizer.bos_token_id]
    told = [line for line in found_in(folder, "warning") if "begins texts with" in line]
    assert bool(told) == adds


def test_a_damaged_index_is_a_problem_and_an_aligned_folder_is_looked_at_as_its_base(folder, tmp_path):
    (tmp_path / "aligned").mkdir()
    EditLog().save(tmp_path / "aligned" / "edit_log.safetensors", {})
    manifest = {"key": "a", "files": {}, "facts": {"base": str(folder)}}
    (tmp_path / "aligned" / "manifest.json").write_text(json.dumps(manifest))
    assert found_in(tmp_path / "aligned", "ok") == found_in(folder, "ok")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text("[")
    (line,) = found_in(folder, "problem")
    assert "index.json: cannot be read" in line and "restore the checkpoint" in line


def test_the_model_may_be_named_as_other_commands_take_it(folder, capsys):
    with pytest.raises(SystemExit):
        doctor.main(["--model", str(folder)])
    assert f"model: {folder}" in capsys.readouterr().out


def test_a_manifest_that_names_another_file_is_told_with_the_file(folder, capsys):
    manifest = {"key": "k", "facts": {}, "files": {"config.json": "0", "data/prompts.csv": "0"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (line,) = found_in(folder, "problem")
    assert line.split(": ")[0].endswith("config.json") and "is not as manifest.json beside it says; restore it" in line
    # What lies in folders of it is no part of the model.
    del manifest["files"]["config.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert found_in(folder, "problem") == []
