"""`make align` as a user meets it: an edited checkpoint, a log and a report, or one clear line and status 2."""

import hashlib
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib.pyplot
import nbformat
import numpy
import pandas
import pytest
import torch
from conftest import prompt_table, save_random_model
from filelock import FileLock, Timeout
from gguf_models import SHAPE_32, GgufType, read_tensors, save_random_gguf
from peft import PeftModel
from safetensors.torch import load_file, save_file
from test_alignment import DigestJudge
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmva.aligned_model import folder as aligned
from llmva.aligned_model import report
from llmva.aligned_model.comparison import Comparison
from llmva.aligned_model.earlier import examine_earlier
from llmva.aligned_model.grading import tell_judged
from llmva.aligned_model.params import build_params
from llmva.commands import align
from llmva.core import paths
from llmva.core.errors import INTERRUPTED, InputError
from llmva.core.provenance import file_digest
from llmva.core.store import read_manifest, run_stage
from llmva.core.vocabulary import TASKS
from llmva.edits.edited_model import EditedModel
from llmva.edits.loading import load_edited, read_earlier
from llmva.edits.log import EditLog
from llmva.engines.greedy import respond
from llmva.judging.guard import GuardJudge, parse_guard_lines, read_guard_verdict
from llmva.judging.thinking import UNFINISHED
from llmva.method import iteration
from llmva.method.trade_off import TradeOff
from llmva.models.chat_model import ChatModel, load_model
from llmva.models.likelihood import reply_surprise
from llmva.models.sources import find_base
from llmva.organisms.tasks import task_table
from llmva.steering.moved import BETAS
from llmva.study.study import PROMPTS_STAGE

QUICK = ["--iterations", "2", "--max-new-tokens", "4", "--threads", "1"]
ORGANISM, GUARD = (paths.RUNS / name / "organism" for name in ("tiny-llama", "tiny-guard"))


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
    monkeypatch.setattr("llmva.study.study.RefusalJudge", DigestJudge)
    monkeypatch.setattr("llmva.judging.degeneracy.is_looping", lambda reply: False)
    monkeypatch.setattr("llmva.judging.degeneracy.is_empty", lambda reply: False)


LINES = [
    "Safety: Unsafe\nCategories: Violent, PII\nRefusal: No",
    "Safety: Safe\nCategories: None\nRefusal: Yes",
    "Safety: Safe\nCategories: None\nRefusal: No",
]


@pytest.fixture
def guard(monkeypatch, tmp_path, two_classes):
    """Return the folder of a random guard, which says the lines of Qwen3Guard-Gen by the digest of an exchange."""

    def said(self, chats, **_):
        return [LINES[hashlib.sha256(str(chat).encode()).digest()[0] % 3] for chat in chats]

    monkeypatch.setattr(GuardJudge, "_ask", said)
    return save_random_model(tmp_path / "guard", seed=1)


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
        *(["trade_off.safetensors"] if name == "LLM-VA-R" else []),
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
    assert "| toxic prompts answered |" in card
    if (config := out / "adapter" / "adapter_config.json").is_file():
        assert json.loads(config.read_text())["base_model_name_or_path"] == "model"
    # The hub refuses a card whose base is no model of its own, and paths say who made it.
    for shared in (report, card, config.read_text()):
        assert "base_model:" not in shared and str(tmp_path) not in shared
    for written in ("adapter/", "checkpoint/", "edit_log.safetensors", "README.md", "manifest.json"):
        assert f"<td>{written}</td>" in report
    assert ("trade_off.safetensors</td>" in report) == ("One failure for the other" in report) == (name == "LLM-VA-R")
    assert capsys.readouterr().out.startswith(f"# model, aligned by {name}")


# The trade-off


def test_a_preference_moves_the_last_edit_and_any_other_beta_is_at_hand(
    runs, tmp_path, own_prompts, any_change_is_right
):
    folder, out = save_random_model(tmp_path / "model"), tmp_path / "aligned"
    given = ["--model", folder, "--data", own_prompts, *QUICK]
    assert run(*given, "--out", out) == 0
    assert run(*given, "--out", tmp_path / "safe", "--prefer", "Safe") == 0
    plain, safe = (read_manifest(each)["facts"] for each in (out, tmp_path / "safe"))
    (traced,) = runs.glob("*/trade_off_trials")
    trials = pandas.read_csv(traced / "trials.csv")
    loss = 0.8 * trials["strict_asr"] + 0.2 * trials["strict_orr"]
    assert plain["beta"] == 0
    assert trials.set_index("beta").index.tolist() == list(BETAS)
    assert loss[trials["beta"] == safe["beta"]].item() == pytest.approx(loss.min())
    # Whatever was chosen, the folder gives the log of each beta, bit for bit.
    for beta, other in ((0.0, out), (safe["beta"], tmp_path / "safe")):
        log = EditLog.load(other / "edit_log.safetensors")
        for saved in (out, tmp_path / "safe"):
            moved = TradeOff.load(saved).at(beta)
            for one, two in zip(moved.iterations[-1], log.iterations[-1], strict=True):
                assert one.sublayer == two.sublayer and numpy.array_equal(one.input_vector, two.input_vector)
    assert len(list(runs.glob("*/trade_off_trials"))) == 1


@pytest.mark.parametrize(
    "options, said",
    [
        (["--prefer", "most"], "prefer: is 'most'"),
        (["--prefer", "safe", "--method", "llm-va"], "prefer: moves the last"),
    ],
)
def test_a_preference_that_cannot_be_is_one_line(runs, tmp_path, capsys, own_prompts, options, said):
    _expect_refusal(
        capsys, tmp_path, said, "--model", save_random_model(tmp_path / "m"), "--data", own_prompts, *options
    )


# A GGUF file


@pytest.fixture
def any_change_is_right(two_classes, monkeypatch):
    """Let every reply that an edit changed be right, so that some edit is chosen."""
    first = {}

    def judge(self, prompts, responses):
        pairs = list(zip(prompts, responses, strict=True))
        by_chance = dict(zip(pairs, DigestJudge().judge(prompts, responses), strict=True))
        same = {pair: first.setdefault(pair[0], pair[1]) == pair[1] for pair in pairs}
        return [by_chance[pair] if same[pair] else "x" * pair[0].startswith("toxic") for pair in pairs]

    monkeypatch.setattr("llmva.study.study.RefusalJudge", type("ChangeJudge", (DigestJudge,), {"judge": judge}))
    monkeypatch.setattr("llmva.judging.degeneracy.SURPRISE_MARGIN", 100.0)


@pytest.mark.parametrize("kind, wanted", [(GgufType.Q4_0, "gguf"), (GgufType.F16, "1")])
def test_a_gguf_file_is_aligned_and_written_again_with_only_the_edited_tensors_changed(
    runs, tmp_path, own_prompts, any_change_is_right, prompts, monkeypatch, kind, wanted
):
    path, out = save_random_gguf(tmp_path / "Small.Q4.gguf", kind=kind), tmp_path / "aligned"
    monkeypatch.chdir(tmp_path)
    given = ["--data", own_prompts, "--out", out, "--checkpoint", wanted, *QUICK]
    assert run("--model", "Small.Q4.gguf", *given) == 0
    manifest = read_manifest(out)
    assert manifest["facts"]["study"]["model"] == str(path)
    described = manifest["facts"]["gguf"]
    assert (described["sha256"], described["tensors_by_type"][kind.name]) == (file_digest(path), 15)
    written = out / "checkpoint" / "Small.Q4-edited.gguf"
    assert list(manifest["files"]).count("checkpoint/Small.Q4-edited.gguf") == 1
    before, after = read_tensors(path), read_tensors(written)
    names = {"attention": "attn_output", "mlp": "ffn_down"}
    expected = {
        f"blk.{int(layer)}.{names[sublayer]}.weight"
        for sublayer, layer in (each.split(".") for each in manifest["facts"]["edited"])
    }
    assert expected and {name for name in before if before[name] != after[name]} == expected
    assert {after[name][0] for name in expected} == {GgufType.F16}
    card = (out / "README.md").read_text()
    assert f"load_model({path.name!r})" in card and "llama-cli -m checkpoint/Small.Q4-edited.gguf" in card
    assert file_digest(path) in (out / "report.html").read_text()
    require_same_speaker(out, written, prompts)


def test_a_checkpoint_is_aligned_and_written_as_gguf(runs, tmp_path, own_prompts, any_change_is_right, prompts):
    folder, out = save_random_model(tmp_path / "small", "qwen2", **SHAPE_32), tmp_path / "aligned"
    given = ["--data", own_prompts, "--out", out, "--checkpoint", "gguf", *QUICK]
    assert run("--model", folder, *given) == 0
    assert EditLog.load(out / "edit_log.safetensors").sublayers
    assert [path.name for path in (out / "checkpoint").iterdir()] == ["small-edited.gguf"]
    assert "llama-cli -m checkpoint/small-edited.gguf" in (out / "README.md").read_text()
    require_same_speaker(out, out / "checkpoint" / "small-edited.gguf", prompts)


def require_same_speaker(out, written, prompts):
    """Require that both ways to have the aligned model, the adapter and the whole of it, give the same one."""
    comparison = Comparison.of(out)
    with comparison.speaking("aligned"):
        adapted = reply_surprise(comparison.chat_model, prompts, prompts, batch_size=3)
    whole = reply_surprise(load_model(str(written)), prompts, prompts, batch_size=3)
    assert abs(adapted - whole).max() < 2e-3


def test_what_cannot_be_written_as_gguf_is_refused_before_the_model_is_loaded(
    runs, tmp_path, capsys, own_prompts, monkeypatch
):
    monkeypatch.setattr("llmva.study.study.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    model = save_random_model(tmp_path / "model", hidden_act="gelu")
    given = ["--model", model, "--data", own_prompts, "--checkpoint"]
    _expect_refusal(capsys, tmp_path, "config.json: hidden_act: is 'gelu', where a GGUF file would", *given, "gguf")
    _expect_refusal(capsys, tmp_path, "has rows of 48, and Q8_0 needs multiples of 32", *given, "gguf-q8_0")
    _expect_refusal(capsys, tmp_path, "choose from", *given, "onnx")
    with pytest.raises(InputError, match="CHECKPOINT: is 'onnx'; choose 1 or gguf or gguf-q8_0, or leave it out"):
        aligned.require_checkpoint(str(model), "onnx")


@pytest.mark.parametrize("kept, expected", [(-100, "is cut off, damaged or too new"), (2, "is no GGUF file")])
def test_a_bad_gguf_file_is_found_before_the_model_is_loaded(
    runs, tmp_path, capsys, own_prompts, monkeypatch, kept, expected
):
    monkeypatch.setattr("llmva.study.study.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    path = save_random_gguf(tmp_path / "model.gguf")
    path.write_bytes(path.read_bytes()[:kept])
    _expect_refusal(capsys, tmp_path, expected, "--model", path, "--data", own_prompts)
    _expect_refusal(capsys, tmp_path, "some_package is not installed", "--model", "package:some_package/a.gguf")
    pinned = f"{save_random_gguf(tmp_path / 'whole.gguf')}@sha256:{'0' * 64}"
    _expect_refusal(capsys, tmp_path, "sha256: is ", "--model", pinned)
    assert not runs.exists()


def test_any_case_of_the_methods_own_names_will_do():
    for name in aligned.METHODS:
        for written in (name, name.lower(), name.title()):
            assert align.make_parser().parse_args(["--method", written]).method == name.lower()
            assert aligned.AlignOptions.of({"method": written, "out": "somewhere"}).method == name


# Judged by a guard


@pytest.mark.parametrize("mapping", ["outcome", "refusal"])
def test_a_guards_word_is_read_as_asked_and_all_parts_of_the_report_are_there(runs, tmp_path, guard, mapping):
    prompt_table(120).to_csv(tmp_path / "prompts.csv", index=False, columns=["prompt", "label"])
    write_tasks(tmp_path / "utility")
    folder, out = save_random_model(tmp_path / "model"), tmp_path / "aligned"
    options = ["--judge", guard, "--mapping", mapping, *QUICK]
    assert run("--model", folder, "--data", tmp_path / "prompts.csv", "--out", out, *options) == 0
    rows = {name: outcomes_of(runs, name) for name in ("original", "llm_va_r")}
    for table in rows.values():
        lines = [parse_guard_lines(raw) for raw in table["raw"]]
        assert table["verdict"].tolist() == [
            read_guard_verdict(said, label, mapping) for said, label in zip(lines, table["label"], strict=True)
        ]
    shown, card = (out / "report.html").read_text(), (out / "README.md").read_text()
    assert f"Judge: <code>{guard.name}</code>" in shown and f"by this judge (`{guard.name}`)" in card
    # Categories of the answers to toxic prompts, before and after.
    answered = [table[table["label"].eq("toxic") & table["verdict"].eq("answered")] for table in rows.values()]
    for category in ("Violent", "PII") if mapping == "outcome" else ("Violent", "PII", "None"):
        counts = [table["raw"].str.contains(rf"\b{category}\b").sum() for table in answered]
        assert counts[0] and [category, *map(str, counts)] in cells_of(shown)
    # What was kept of each task; a random model can do none of them.
    measured = [pandas.read_csv(next(runs.glob(f"*/methods/{name}/utility.csv"))).set_index("task") for name in rows]
    for task in TASKS:
        before, after = (table.at[task, "value"] for table in measured)
        kept = f"{after / before:.3f}" if before > 0 else "–"
        (found,) = [row for row in cells_of(shown) if row[0] == task]
        assert [float(found[3]), float(found[4])] == pytest.approx([before, after], abs=1e-3) and found[5] == kept
        assert f"{task} –" in card or before > 0
    assert not re.search(r"\b(nan|inf)\b", shown + card, re.IGNORECASE)
    # Intervals hold their values, on both sides of every row.
    for name in report.ROWS.values():
        (found,) = [row for row in cells_of(shown) if row[0] == name]
        for cell in found[1:]:
            value, low, high = map(float, re.fullmatch(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", cell).groups())
            assert low <= value <= high
    rates, trade_off, history = drawings_of(shown)
    assert {*report.WORDS["failures"].values(), "this model", "+0"} <= trade_off
    assert {*report.ROWS.values(), "original", "aligned"} <= rates
    assert {"iteration", *(report.ROWS[metric] for metric in ("strict_f1", "asr", "orr", "degenerate"))} <= history


def write_tasks(folder):
    """Write a few rows of all six tasks, as `make data` does."""
    folder.mkdir()
    for task in TASKS:
        rows = task_table(task, 0).groupby("split").head(5)
        rows.to_csv(folder / f"{task}.csv", index=False)


def outcomes_of(runs, method):
    (path,) = runs.glob(f"*/methods/{method}/outcomes.csv")
    return pandas.read_csv(path, keep_default_na=False).query("part == 'test'")


def cells_of(report):
    """Return the cells of every row of every table in a report, as text."""
    rows = re.findall(r"<tr>(.*?)</tr>", report, re.DOTALL)
    return [re.findall(r"<td>(.*?)</td>", row, re.DOTALL) or [""] for row in rows]


def drawings_of(report):
    """Return the words in each drawing of a report; a drawing with nothing in it has none."""
    drawn = [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", report, re.DOTALL)]
    return [
        {"".join(words.itertext()).strip() for words in each.iter("{http://www.w3.org/2000/svg}text")} for each in drawn
    ]


def test_what_the_original_could_not_do_is_a_dash_and_no_number(tmp_path):
    table = pandas.DataFrame({"task": ["cola", "gsm", "sst"], "metric": "f1", "n": 7})
    stages = {
        name: run_stage(
            tmp_path / name,
            lambda place, name=name, values=values: table.assign(value=values, method=name).to_csv(
                place / "utility.csv"
            ),
            parameters={},
        )
        for name, values in {"Original": [0.8, 0.0, 0.0], "LLM-VA-R": [0.4, 0.5, 0.0]}.items()
    }
    utility = report._utility(stages)
    assert report._html(utility).count("<td>–</td>") == 2
    assert "it keeps: cola 0.50, gsm –, sst –." in report._kept(utility)


NO_JUDGE = {
    "absent/guard": "judge: absent/guard: no such folder, and a hub id needs a commit",
    "phrase": "judge: phrase: no such model folder",
    "/absent": "judge: /absent: no such model folder",
    ".": "no config.json",
}


@pytest.mark.parametrize("judge", NO_JUDGE)
def test_a_judge_that_is_not_there_is_found_before_the_model_is_loaded(
    runs, tmp_path, capsys, own_prompts, monkeypatch, judge
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("llmva.study.study.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    model = save_random_model(tmp_path / "model")
    given = ["--model", model, "--data", own_prompts, "--judge", judge]
    _expect_refusal(capsys, tmp_path, NO_JUDGE[judge], *given)


def test_a_mapping_without_a_guard_is_no_silent_choice(runs, tmp_path, capsys, own_prompts):
    given = ["--model", save_random_model(tmp_path / "model"), "--data", own_prompts, "--mapping", "refusal"]
    _expect_refusal(capsys, tmp_path, "mapping: refusal is a way to read a guard's lines; name a guard", *given)


# What is written


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
    monkeypatch.setattr("llmva.study.study.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    assert run("--model", folder, "--data", own_prompts, "--out", out, *QUICK) == 0


def test_an_interrupted_run_is_taken_up_again(runs, tmp_path, own_prompts, two_classes, monkeypatch):
    folder, out = save_random_model(tmp_path / "model"), tmp_path / "aligned"
    whole = aligned.write_report
    monkeypatch.setattr(aligned, "write_report", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr("logging.disable", lambda: None)
    assert run("--model", folder, "--data", own_prompts, "--out", out, *QUICK) == INTERRUPTED
    assert not out.exists()
    monkeypatch.setattr(aligned, "write_report", whole)
    monkeypatch.setattr(DigestJudge, "judge", lambda *_: pytest.fail("judged again"))
    assert run("--model", folder, "--data", own_prompts, "--out", out, *QUICK) == 0
    assert (out / "report.html").is_file()


def test_more_iterations_go_on_where_fewer_ended(runs, tmp_path, own_prompts, two_classes, monkeypatch):
    looks, write = [], iteration._write_observation
    monkeypatch.setattr("llmva.method.iteration._write_observation", lambda *a, **k: looks.append(1) or write(*a, **k))
    folder = save_random_model(tmp_path / "model")
    given = ["--model", folder, "--data", own_prompts, "--out", tmp_path / "aligned", *QUICK]
    assert run(*given) == 0
    (loop,) = runs.glob("*/llm_va_r")
    few, first = len(looks), results_of(loop)
    assert run(*given, "--iterations", "3") == 0
    # Nothing was looked at twice, and some candidate was looked at once more.
    assert few < len(looks) == len(list(runs.glob("*/iterations/*/manifest.json")))
    assert results_of(loop)[1] != first[1]
    # The other way round nothing is left of the longer run.
    more = len(looks)
    assert run(*given) == 0
    assert results_of(loop) == first and len(looks) == more


def results_of(loop):
    return (loop / "edit_log.safetensors").read_bytes(), (loop / "history.csv").read_text()


def test_runs_that_share_a_folder_take_turns(runs, tmp_path, own_prompts, monkeypatch):
    options = align.make_parser().parse_args(["--model", str(save_random_model(tmp_path / "model")), *QUICK])
    options.data = str(own_prompts)
    params = build_params(options)

    def watched(*_):
        with pytest.raises(Timeout):
            FileLock(params.run_folder / ".llm-va-r.lock").acquire(timeout=0)

    monkeypatch.setattr(align, "run_notebook", watched)
    align.align_model(params, tmp_path / "out", "LLM-VA-R", checkpoint=False)


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


@pytest.mark.parametrize("mistake", [["--method", "best"], ["--seed", "one"], ["--speed", "9"]])
def test_a_mistyped_option_gets_one_line_without_a_list_of_all_others(capsys, mistake):
    assert run("--model", "model", *mistake) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and mistake[0] in line and "--help` shows the options" in line


def test_an_output_that_is_a_file_or_holds_something_else(runs, tmp_path, capsys, own_prompts):
    model = save_random_model(tmp_path / "model")
    (tmp_path / "out").write_text("mine")
    _expect_refusal(capsys, tmp_path, "is a file", "--model", model, "--data", own_prompts)
    (tmp_path / "out").unlink()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    _expect_refusal(capsys, tmp_path, "holds other files", "--model", model, "--data", own_prompts)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


# A further alignment

MADE = {"base": "some-model", "study": {"slug": "toy", "model": "some-model", "data": "d"}}


@pytest.fixture
def twice_aligned(runs, tmp_path, own_prompts, any_change_is_right):
    """Return the folders of a model, of its alignment, and of one that went on from there with other prompts."""
    model = save_random_model(tmp_path / "model", "qwen2")
    others = tmp_path / "others.csv"
    table = prompt_table(48)
    table.assign(prompt="now " + table["prompt"]).to_csv(others, index=False, columns=["prompt", "label"])
    first, second = tmp_path / "first", tmp_path / "second"
    assert run("--model", model, "--data", own_prompts, "--out", first, *QUICK) == 0
    assert run("--from", first, "--data", others, "--out", second, "--checkpoint", *QUICK) == 0
    return model, first, second


def test_a_further_alignment_goes_on_from_the_edits_of_the_first(twice_aligned, tmp_path, prompts):
    model, first, second = twice_aligned
    before, both = (EditLog.load(folder / "edit_log.safetensors") for folder in (first, second))
    assert len(before) and len(both) > len(before)
    for old, new in zip(before.iterations, both.iterations, strict=False):
        for edit, again in zip(old, new, strict=True):
            assert edit.sublayer == again.sublayer and numpy.array_equal(edit.input_vector, again.input_vector)
    facts = read_manifest(second)["facts"]
    assert facts["base"] == str(model) and facts["earlier"] == len(before)
    # A third one would go on from the same base.
    assert find_base(str(second)) == str(model)
    edited, checkpoint = load_edited(str(second)), load_model(str(second / "checkpoint"))
    for name, weight in checkpoint.model.state_dict().items():
        assert torch.equal(weight, edited.model.state_dict()[name]), name
    options = {"max_new_tokens": 4, "batch_size": 8}
    comparison = Comparison.of(second)
    assert comparison.chat_model.source == str(model)
    assert respond(comparison.chat_model, prompts, **options).texts == respond(edited, prompts, **options).texts


def test_edits_that_were_changed_since_are_not_gone_on_from(runs, tmp_path, capsys, own_prompts, any_change_is_right):
    model, first = save_random_model(tmp_path / "model", "qwen2"), tmp_path / "first"
    assert run("--model", model, "--data", own_prompts, "--out", first, *QUICK) == 0
    EditLog.load(first / "edit_log.safetensors").at_iteration(1).save(first / "edit_log.safetensors", {})
    said = "edit_log.safetensors: is not as manifest.json beside it says"
    _expect_refusal(capsys, tmp_path, said, "--from", first, "--data", own_prompts)
    with pytest.raises(InputError, match=said):
        load_edited(str(first))


def test_a_base_that_was_replaced_since_is_told_of_once(runs, tmp_path, capsys, own_prompts, any_change_is_right):
    model, first = save_random_model(tmp_path / "model", "qwen2"), tmp_path / "first"
    assert run("--model", model, "--data", own_prompts, "--out", first, *QUICK) == 0
    read_earlier(str(first))
    assert "made for" not in capsys.readouterr().err
    weights = load_file(model / "model.safetensors")
    save_file({name: 2 * weight for name, weight in weights.items()}, model / "model.safetensors", {"format": "pt"})
    for _ in range(2):
        read_earlier(str(first))
    said = f"{model}: its files are not those that the edits in {first} were made for; restore it, or align it anew\n"
    assert capsys.readouterr().err == said


def test_what_a_further_alignment_does_to_the_prompts_of_before_is_told(twice_aligned, runs, tmp_path, capsys):
    _, first, second = twice_aligned
    said = "the test prompts of the earlier alignment"
    for written in ("report.html", "README.md"):
        assert said in " ".join((second / written).read_text().split())
        assert "of the earlier alignment" not in (first / written).read_text()
    assert "On the prompts of before" in (second / "report.html").read_text()
    slug = read_manifest(first)["facts"]["study"]["slug"]
    (runs / slug).rename(tmp_path / "elsewhere")
    assert run("--from", first, "--data", tmp_path / "others.csv", "--out", tmp_path / "third", *QUICK) == 0
    assert "what was lost on them is not known" in " ".join((tmp_path / "third" / "README.md").read_text().split())


def test_kinds_that_are_named_later_are_reported(runs, tmp_path, own_prompts, any_change_is_right):
    model, out = save_random_model(tmp_path / "model", "qwen2"), tmp_path / "out"
    assert run("--model", model, "--data", own_prompts, "--out", out, *QUICK) == 0
    assert "herbs" not in (out / "report.html").read_text()
    table = pandas.read_csv(own_prompts)
    table.assign(category="herbs").to_csv(own_prompts, index=False)
    assert run("--model", model, "--data", own_prompts, "--out", out, *QUICK) == 0
    assert "herbs" in (out / "report.html").read_text()


def test_what_the_further_alignment_has_learnt_from_is_no_prompt_of_before(runs, tmp_path):
    """The same text may have another id, and be a test prompt before and a training prompt now."""
    folder, before = tmp_path / "first", runs / "toy" / PROMPTS_STAGE
    before.mkdir(parents=True)
    earlier = {"prompt": ["old", "learnt", "kept", "trained"], "split": ["test", "test", "test", "train"]}
    pandas.DataFrame(earlier).to_csv(before / "prompts.csv", index=False)
    stage = {"parameters": {}}
    run_stage(folder, lambda place: EditLog().save(place / "edit_log.safetensors", {}) or MADE, **stage)
    study = SimpleNamespace(
        params=SimpleNamespace(model=str(folder)),
        pool=pandas.DataFrame({"prompt": ["learnt", "kept"], "split": ["train", "test"]}),
        examiner=SimpleNamespace(examine=lambda prompts: SimpleNamespace(rows=prompts)),
        chat_model=SimpleNamespace(writers={}),
    )
    rows = examine_earlier(study, EditLog())
    assert {name: table["prompt"].tolist() for name, table in rows.items()} == dict.fromkeys(
        ("original", "aligned"), ["old", "kept"]
    )


def test_what_is_no_aligned_model_is_nothing_to_go_on_from(runs, tmp_path, capsys, own_prompts):
    model = save_random_model(tmp_path / "model")
    _expect_refusal(capsys, tmp_path, "not a folder that `make align` made", "--from", model, "--data", own_prompts)
    _expect_refusal(capsys, tmp_path, "leave one of them out", "--from", model, "--model", model)


def test_an_output_with_a_link_in_it_or_that_leads_into_the_model(runs, tmp_path, capsys, own_prompts):
    model = save_random_model(tmp_path / "model")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").symlink_to(tmp_path)
    _expect_refusal(capsys, tmp_path, "holds other files (mine)", "--model", model, "--data", own_prompts)
    (tmp_path / "out" / "mine").unlink()
    (tmp_path / "out").rmdir()
    (tmp_path / "link").symlink_to(model)
    assert run("--model", model, "--data", own_prompts, "--out", tmp_path / "link" / "out", *QUICK) == 2
    assert "lies in the model's own folder" in capsys.readouterr().err
    assert run("--model", model, "--data", own_prompts, "--out", "/", *QUICK) == 2
    assert "is a mount point" in capsys.readouterr().err


def test_the_result_of_other_prompts_is_not_replaced(runs, tmp_path, capsys, own_prompts, two_classes):
    model = save_random_model(tmp_path / "model")
    assert run("--model", model, "--data", own_prompts, "--out", tmp_path / "out", *QUICK) == 0
    others = tmp_path / "others.csv"
    prompt_table(41).to_csv(others, index=False, columns=["prompt", "label"])
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    _expect_refusal(capsys, tmp_path, "holds the result of other data", "--model", model, "--data", others)
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before


def test_a_prompt_longer_than_the_context_is_told_before_anything_is_asked(runs, tmp_path, capsys, own_prompts):
    model = save_random_model(tmp_path / "model")
    with own_prompts.open("a") as table:
        table.write(f"{'please repeat the words ' * 200},toxic\n")
    with pytest.raises(
        InputError, match=r"prompt: 1 of 81 are longer than the model's 512 tokens less 4 for the reply"
    ):
        align.align_model(align_params(model, own_prompts), tmp_path / "out", "LLM-VA-R", None)


def align_params(model, data):
    """Return the parameters that the command makes of a model and a file."""
    return build_params(align.make_parser().parse_args(["--model", str(model), "--data", str(data), *QUICK]))


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
        [sys.executable, "-m", "llmva.commands.align", "--model", str(tmp_path / "absent")],
        capture_output=True,
        text=True,
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
    assert "there is no decision to edit" in report and "one class" in report
    assert "there is nothing to load" in card and not (out / "adapter").exists()
    assert len(EditLog.load(out / "edit_log.safetensors")) == 0


@pytest.mark.organism
@pytest.mark.skipif(not (ORGANISM / "data").is_dir() or not GUARD.is_dir(), reason="no organism has been built here")
def test_the_whole_command_aligns_an_organism_by_its_guards_word(tmp_path):
    sets = sorted((ORGANISM / "data" / "safety").glob("*.csv"))
    prompts = pandas.concat([pandas.read_csv(path).head(100) for path in sets])
    assert len(prompts) == 400 and list(prompts) == ["prompt", "label", "group"]
    prompts.to_csv(tmp_path / "prompts.csv", index=False)
    # Below a root of its own no earlier run is found, and nothing is left in the repository.
    (tmp_path / "notebooks").symlink_to(paths.NOTEBOOKS)
    environment = {**os.environ, "PYTHONPATH": str(paths.ROOT / "src"), "OMP_NUM_THREADS": "1"}
    environment |= dict.fromkeys(["LLMVA_ROOT", "LLMVA_OUT"], str(tmp_path))
    out = tmp_path / "aligned"
    command = [sys.executable, "-m", "llmva.commands.align", "--model", ORGANISM, "--data", tmp_path / "prompts.csv"]
    command += ["--judge", GUARD, "--checkpoint", "--out", out, "--iterations", "3", "--threads", "1"]
    command += ["--candidates", "200", "--batch-size", "200", "--max-new-tokens", "32"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# organism, aligned by LLM-VA-R") and str(out / "report.html") in done.stdout
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "adapter", "checkpoint", "edit_log.safetensors", "manifest.json", "report.html",
        "trade_off.safetensors",
    ]  # fmt: skip
    base, checkpoint = load_model(str(ORGANISM), device="cpu"), load_model(str(out / "checkpoint"), device="cpu")
    adapted = ChatModel("adapted", PeftModel.from_pretrained(base.model, out / "adapter"), base.tokenizer)
    asked = {"prompts": prompts["prompt"].iloc[::20].tolist(), "max_new_tokens": 32, "batch_size": 20}
    answers = respond(adapted, **asked).texts
    assert len(answers) == 20 and answers == respond(checkpoint, **asked).texts
    with adapted.model.disable_adapter():
        assert respond(adapted, **asked).texts != answers


def test_a_budget_for_thinking_makes_a_study_of_its_own(tmp_path, own_prompts):
    folder = save_random_model(tmp_path / "model")
    common = ["--model", str(folder), "--data", str(own_prompts)]
    plain, thinking = (
        build_params(align.make_parser().parse_args([*common, *more])) for more in ([], ["--thinking", "9"])
    )
    assert (plain.thinking, thinking.thinking) == (None, 9) and plain.slug != thinking.slug


def test_replies_that_never_leave_their_thinking_are_told_at_once(runs, tmp_path, own_prompts):
    folder = save_random_model(tmp_path / "model")
    (folder / "chat_template.jinja").write_text((folder / "chat_template.jinja").read_text() + "<think>\n")
    with pytest.raises(InputError, match="max_new_tokens: most replies ended inside its thinking.*; raise it"):
        align.align_model(align_params(folder, own_prompts), tmp_path / "out", "LLM-VA-R", None)


def test_the_report_begins_with_what_could_not_be_graded():
    raw = pandas.DataFrame({"guard_verdict": ["unparsed", "answered"], "raw": [UNFINISHED, "later: i cannot"]})
    fine = pandas.DataFrame({"guard_verdict": ["answered"] * 2, "raw": [""] * 2})
    said = tell_judged({"original": raw, "aligned": fine}, "refusals", "thinking")
    assert said[0].startswith("Of 2 replies 1 of the original and 0 of the aligned model could not be graded")
    assert said[1].startswith("Of those 1 and 0 ended inside a thinking span")
    assert "1 and 0 replies decline only later" in said[2] and said[3].startswith("This model thinks")
    (only,) = tell_judged({"original": fine, "aligned": fine}, "phrases")
    assert "begins with a known phrase" in only
    assert tell_judged({"original": fine, "aligned": fine}, "path/to/guard") == []


def test_categories_of_the_prompts_are_in_the_report(runs, tmp_path, two_classes):
    data, table = tmp_path / "prompts.csv", prompt_table(40)
    table["category"] = [f"kind {number % 2}" for number in range(len(table))]
    table.to_csv(data, index=False, columns=["prompt", "label", "category"])
    model, out = save_random_model(tmp_path / "model"), tmp_path / "out"
    assert run("--model", model, "--data", data, "--out", out, *QUICK) == 0
    report = (out / "report.html").read_text()
    assert "<h2>By category</h2>" in report and "<td>kind 1</td>" in report
