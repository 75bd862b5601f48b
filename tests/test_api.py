"""`llmva.align` as a user's notebook calls it: a model in memory, a table of prompts, and the model left as it was."""

import subprocess
import sys
from pathlib import Path

import pandas
import peft
import pytest
import torch
from conftest import prompt_table, save_random_model
from test_align import any_change_is_right, two_classes  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer

import llmva
from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.store import read_manifest
from llmva.edits.loading import read_earlier
from llmva.edits.log import EditLog
from llmva.models.in_memory import evaluating, hold
from llmva.models.sources import checkpoint_key

QUICK = {"iterations": 2, "max_new_tokens": 4, "batch_size": 64}


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    folder = save_random_model(tmp_path / "model")
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def prompts():
    return prompt_table(40)[["prompt", "label"]]


def weights_of(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def same(first, second) -> bool:
    return all(torch.equal(weight, second[name]) for name, weight in first.items())


def test_a_model_in_memory_is_aligned_and_left_as_it_was(loaded, prompts, any_change_is_right, tmp_path):  # noqa: F811
    model, tokenizer = loaded
    model.train()
    before = weights_of(model)
    result = llmva.align(model, tokenizer, prompts, **QUICK)
    assert same(before, model.state_dict()) and model.training
    assert result.history.index.tolist() == [0, 1, 2] and len(result.log) > 0
    assert list(result.summary().columns) == ["original", "aligned"] and "<table" in result._repr_html_()
    with result.applied() as edited:
        assert edited is model and not same(before, model.state_dict())
        inside = weights_of(model)
    assert same(before, model.state_dict())
    out = result.save(tmp_path / "aligned", checkpoint=True)
    assert {"adapter", "checkpoint", "edit_log.safetensors", "report.html", "README.md"} <= {
        path.name for path in out.iterdir()
    }
    saved = AutoModelForCausalLM.from_pretrained(out / "checkpoint").state_dict()
    assert same(inside, saved) and same(before, model.state_dict())
    assert EditLog.load(out / "edit_log.safetensors").sublayers == result.log.sublayers
    assert result.merge() is model and same(inside, model.state_dict())
    for again in (result.merge, lambda: result.save(tmp_path / "twice"), lambda: result.applied().__enter__()):
        with pytest.raises(InputError, match="holds the edits for good already"):
            again()
    assert same(inside, model.state_dict())


def test_the_knob_is_exact_and_costs_nothing(loaded, prompts, any_change_is_right):  # noqa: F811
    result = llmva.align(*loaded, prompts, **QUICK)
    assert result.beta == 0 and result.at(0).iterations == result.log.iterations
    assert len(result.at(-0.5)) == len(result.log)
    own = result.history.loc[len(result.log), "strict_f1"]
    assert result.frontier.loc[0.0, "strict_f1"] == pytest.approx(own, abs=1e-3)
    assert len(result.plot_frontier().axes) == 1
    with result.applied(-0.5) as moved:
        first = weights_of(moved)
    with result.applied() as own:
        assert not same(first, own.state_dict())


def test_a_second_call_computes_nothing_and_other_weights_are_another_study(
    loaded,
    prompts,
    any_change_is_right,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    model, tokenizer = loaded
    llmva.align(model, tokenizer, prompts, **QUICK)
    (first,) = (tmp_path / "runs").glob("align-*")
    with monkeypatch.context() as patched:
        patched.setattr("llmva.study.study.ReplyMemory.respond", lambda *_, **__: pytest.fail("asked again"))
        llmva.align(model, tokenizer, prompts, **QUICK)
    with torch.no_grad():
        model.get_output_embeddings().weight[0, 0] += 1
    llmva.align(model, tokenizer, prompts, **QUICK)
    assert len(list((tmp_path / "runs").glob("align-*"))) == 2 and first.is_dir()


def test_the_report_is_shown_in_a_frame_of_its_own(loaded, prompts, two_classes):  # noqa: F811
    report = llmva.align(*loaded, prompts, **QUICK).report()
    shown = report._repr_html_()
    assert shown.startswith("<iframe srcdoc=") and "toxic prompts answered" in shown and "<html" not in shown
    assert not any(prompt in report.path.read_text() for prompt in prompts["prompt"])


def test_the_papers_method_has_no_trade_off(loaded, prompts, two_classes):  # noqa: F811
    result = llmva.align(*loaded, prompts, method="llm-va", **QUICK)
    assert result.method == "LLM-VA" and result.frontier.empty
    with pytest.raises(InputError, match="beta: LLM-VA has no trade-off"):
        result.at(0.5)
    with pytest.raises(InputError, match="frontier: LLM-VA has edited nothing that could be moved"):
        result.plot_frontier()


MISTAKES = {
    "no label": ({"prompts": pandas.DataFrame({"prompt": ["a"]})}, "prompts: no column 'label'"),
    "few": ({"prompts": pandas.DataFrame({"prompt": ["a"], "label": ["toxic"]})}, "prompts: 1 prompts; at least 10"),
    "method": ({"method": "best"}, "method: is 'best'; choose LLM-VA-R or LLM-VA"),
    "prefer": ({"prefer": "most"}, "prefer: is 'most'"),
    "judge": ({"judge": "/absent"}, "judge: .*absent"),
    "judge as a path": ({"judge": Path("/absent")}, "judge: /absent"),
    "no judge": ({"judge": None}, "judge: is a NoneType; choose phrases, refusals"),
    "mapping": ({"mapping": None}, "mapping: is None; choose outcome or refusal"),
    "several preferences": ({"prefer": [0.5]}, r"prefer: is \[0.5\]"),
    "true as a preference": ({"prefer": True}, "prefer: is True"),
    "iterations": ({"iterations": "5"}, "iterations: is '5'; choose a whole number"),
    "no seed": ({"seed": None}, "seed: is None; choose a whole number"),
    "few candidates": ({"candidates": 5}, "candidates: is 5; .*equal to 10"),
    "list": ({"prompts": prompt_table(40).assign(prompt=[["a"]] * 80)}, "prompts: prompt: of type list in data row 1"),
    "number": ({"prompts": prompt_table(40).assign(prompt=range(80))}, "prompts: prompt: of type int in data row 1"),
    "twice": ({"prompts": pandas.concat([prompt_table(40)] * 2, axis=1)}, "prompts: two columns are named 'prompt'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(loaded, prompts, case):
    changes, said = MISTAKES[case]
    model, tokenizer = loaded
    with pytest.raises(InputError, match=said) as raised:
        llmva.align(model, tokenizer, **({"prompts": prompts} | QUICK | changes))
    assert "\n" not in str(raised.value) and not list(paths.RUNS.glob("**/*"))


def lora(model):
    return peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"]))


STRANGERS = {
    "a name": (lambda model, tokenizer: ("tiny", tokenizer), "model: is a str; give a model of transformers"),
    "swapped": (lambda model, tokenizer: (tokenizer, model), "model: is a .*; give a model of transformers"),
    "no head": (lambda model, tokenizer: (model.model, tokenizer), "which writes no tokens; load it with AutoModelFor"),
    "adapter": (lambda model, tokenizer: (lora(model), tokenizer), "`merge_and_unload"),
    "no tokenizer": (lambda model, tokenizer: (model, None), "tokenizer: is a NoneType"),
    "meta": (lambda model, tokenizer: (model.to("meta"), tokenizer), "no weights in memory"),
}


@pytest.mark.parametrize("case", STRANGERS)
def test_something_else_than_a_model_and_its_tokenizer_is_one_line(loaded, prompts, case):
    change, said = STRANGERS[case]
    with pytest.raises(InputError, match=said):
        llmva.align(*change(*loaded), prompts, **QUICK)


def change_template(model, tokenizer):
    tokenizer.chat_template = "{{ '\n' }}" + tokenizer.chat_template


def change_ends(model, tokenizer):
    model.generation_config.eos_token_id = [5]


def change_buffer(model, tokenizer):
    next(buffer for name, buffer in model.named_buffers() if "inv_freq" in name).mul_(0.5)


def change_by_hook(model, tokenizer):
    model.model.layers[0].register_forward_hook(lambda module, inputs, output: output)


@pytest.mark.parametrize("change", [change_template, change_ends, change_buffer, change_by_hook])
def test_whatever_replies_depend_on_tells_models_apart(loaded, change):
    before = hold(*loaded).key
    assert hold(*loaded).key == before
    change(*loaded)
    assert hold(*loaded).key != before


def test_encoding_texts_does_not_tell_a_model_from_itself(loaded):
    model, tokenizer = loaded
    before = hold(model, tokenizer).key
    tokenizer(["how", "how do i"], padding=True, truncation=True, max_length=2)
    assert hold(model, tokenizer).key == before


def test_edits_are_made_once_and_to_the_weights_that_they_were_made_for(
    loaded,
    prompts,
    any_change_is_right,  # noqa: F811
    tmp_path,
):
    model, _ = loaded
    result = llmva.align(*loaded, prompts, **QUICK)
    other = llmva.align(*loaded, prompts, **QUICK)
    ways = (result.merge, lambda: result.save(tmp_path / "out"), lambda: result.applied().__enter__())
    with result.applied():
        for way in ways:
            with pytest.raises(InputError, match="holds the edits inside this `with` block"):
                way()
        with pytest.raises(InputError, match="not as it was when the edits were made"):
            other.merge()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1.01)
    for way in ways:
        with pytest.raises(InputError, match="not as it was when the edits were made"):
            way()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("checkpoint", ["gguf", "no", None, 1])
def test_a_checkpoint_is_wanted_or_not(loaded, prompts, any_change_is_right, tmp_path, checkpoint):  # noqa: F811
    result = llmva.align(*loaded, prompts, **QUICK)
    with pytest.raises(InputError, match="checkpoint: is .*; choose True or False"):
        result.save(tmp_path / "out", checkpoint=checkpoint)


@pytest.mark.parametrize("folder", [None, "", 7, "x" * 500])
def test_a_folder_to_save_to_is_a_name(loaded, prompts, any_change_is_right, folder):  # noqa: F811
    result = llmva.align(*loaded, prompts, **QUICK)
    with pytest.raises(InputError, match="is no name of a file|cannot be looked for"):
        result.save(folder)


def test_a_name_that_cannot_be_looked_for_is_one_line(loaded):
    loaded[0].config._name_or_path = "x" * 500
    with pytest.raises(InputError, match=r"^x{80}: cannot be looked for \(File name too long\)"):
        hold(*loaded)


def test_a_result_of_other_prompts_is_not_replaced(loaded, prompts, any_change_is_right, tmp_path):  # noqa: F811
    llmva.align(*loaded, prompts, **QUICK).save(tmp_path / "out")
    llmva.align(*loaded, prompts, **QUICK | {"iterations": 1}).save(tmp_path / "out")
    other = llmva.align(*loaded, prompts.assign(prompt=prompts["prompt"] + "?"), **QUICK)
    with pytest.raises(InputError, match="holds the result of other data"):
        other.save(tmp_path / "out")


def test_who_works_in_the_models_folder_has_a_report(loaded, prompts, any_change_is_right, tmp_path):  # noqa: F811
    loaded[0].config._name_or_path = str(tmp_path)
    result = llmva.align(*loaded, prompts, **QUICK)
    assert result.report().path.is_file()
    with pytest.raises(InputError, match="lies in the model's own folder"):
        result.save(tmp_path / "inside")


def test_modules_that_were_set_apart_stay_so(loaded):
    model, _ = loaded
    model.train().model.layers[0].eval()
    before = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before


def test_a_tokenizer_with_several_templates_is_given_its_default(loaded):
    model, tokenizer = loaded
    tokenizer.chat_template = {"default": tokenizer.chat_template, "rag": "{{ 'rag' }}"}
    assert hold(model, tokenizer).chat_model.tokenizer.chat_template == tokenizer.chat_template["default"]
    tokenizer.chat_template = {"rag": "{{ 'rag' }}"}
    with pytest.raises(InputError, match="its chat templates are rag, and none is `default`"):
        hold(model, tokenizer)


def test_a_model_is_named_as_any_folder_names_it(loaded, tmp_path, monkeypatch):
    model, tokenizer = loaded
    monkeypatch.chdir(tmp_path)
    model.config._name_or_path = "model"
    assert hold(model, tokenizer).chat_model.source == str(tmp_path / "model")
    model.config._name_or_path, model.config._commit_hash = "owner/name", "0" * 40
    assert hold(model, tokenizer).chat_model.source == "owner/name@" + "0" * 40


def test_a_tokenizer_without_a_template_is_one_line(loaded, prompts):
    model, tokenizer = loaded
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template; set tokenizer.chat_template"):
        llmva.align(model, tokenizer, prompts, **QUICK)


def test_the_face_of_the_library_imports_no_torch():
    code = "import sys, llmva; assert 'align' in dir(llmva); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'realign'"):
        _ = llmva.realign


def test_another_beta_is_saved_with_a_report_of_its_own(loaded, prompts, any_change_is_right, tmp_path):  # noqa: F811
    result = llmva.align(*loaded, prompts, **QUICK)
    out = result.save(tmp_path / "moved", beta=-0.25)
    moved = EditLog.load(out / "edit_log.safetensors")
    for found, expected in zip(moved.iterations[-1], result.at(-0.25).iterations[-1], strict=True):
        assert found.input_vector == pytest.approx(expected.input_vector)
    assert "beta -0.25" in (out / "report.html").read_text()
    assert result.beta == 0 and result.log.iterations[-1][0].input_vector != pytest.approx(
        moved.iterations[-1][0].input_vector
    )


@pytest.mark.parametrize("beta", [50, "safe", float("nan"), None])
def test_a_beta_is_a_number_where_the_frontier_was_measured(loaded, prompts, any_change_is_right, beta):  # noqa: F811
    result = llmva.align(*loaded, prompts, **QUICK)
    with pytest.raises(InputError, match="beta: is .*; choose a number from -1 .* to 1"):
        result.at(beta)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("prompts.csv", "prompts: is a str; give a DataFrame with prompt and label"),
        (pandas.DataFrame({"prompt": ["hi"], "label": ["unsafe"]}), "^prompts: label: 'unsafe' in data row 1"),
        (pandas.DataFrame({"prompt": ["hi"], "label": ["toxic"]}), "^prompts: 1 prompts; at least"),
    ],
)
def test_prompts_that_cannot_be_used_are_called_so_and_leave_nothing(loaded, given, message, tmp_path):
    with pytest.raises(InputError, match=message):
        llmva.align(*loaded, given, **QUICK)
    assert not (tmp_path / "runs").exists()


def test_the_report_says_that_failures_were_preferred(loaded, two_classes):  # noqa: F811
    prompts = prompt_table(60)[["prompt", "label"]]
    result = llmva.align(*loaded, prompts, candidates=50, **QUICK)
    asked = len(result.study.prompts_stage.folder.joinpath("verdicts.csv").read_text().splitlines()) - 1
    kept = len(result.study.pool)
    said = result.report()
    text = said.path.read_text()
    assert f"The original answered {asked} prompts" in text and f"Of all {asked} it answered" in text
    assert ("its\nfailures first" in text or "its failures first" in text) is (kept < asked)
    assert repr(said).startswith("report: ") and "toxic prompts answered" in repr(result)


def test_a_model_that_was_changed_in_memory_is_not_saved_as_its_files(loaded, prompts, any_change_is_right, tmp_path):  # noqa: F811
    model, tokenizer = loaded
    result = llmva.align(model, tokenizer, prompts, **QUICK)
    facts = read_manifest(result.save(tmp_path / "same"))["facts"]
    assert not facts["changed_in_memory"] and facts["base_key"] == checkpoint_key(facts["base"])
    read_earlier(str(tmp_path / "same"))
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.mul_(1.02)
    folder = llmva.align(model, tokenizer, prompts, **QUICK).save(tmp_path / "changed")
    facts = read_manifest(folder)["facts"]
    assert facts["changed_in_memory"] and facts["base_key"] is None
    assert "is not what its files hold: it was changed in memory" in (folder / "README.md").read_text()
    with pytest.raises(InputError, match="its edits are made for a model that was changed in memory; save that model"):
        read_earlier(str(folder))
