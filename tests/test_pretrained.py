"""The organism on pretrained weights: who gets which prompt, what is taught, what it leaves, and its own world."""

import random

import pandas
import pytest
import torch
from conftest import save_random_model

from llmva.commands import pretrained_report
from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.provenance import multiplies_bfloat16
from llmva.core.results import has_seeds, is_organism, read_results, world_of
from llmva.core.vocabulary import PRETRAINED_MODELS, PRETRAINED_SETS, UNTUNED
from llmva.models.chat_model import load_model
from llmva.organisms.build import build_organism
from llmva.organisms.families import PRETRAINED, parse_slug
from llmva.organisms.pretrained import checkpoint, tuning
from llmva.organisms.pretrained.prompts import collect_prompts, deal_prompts, study_tables, words
from llmva.organisms.pretrained.tuning import (
    Lesson,
    TuningRecipe,
    encode_lessons,
    first_words,
    has_keyword,
    tune,
    write_lessons,
)
from llmva.organisms.training import reply_loss
from llmva.paper.display import split_worlds
from llmva.paper.figures.drawing import file_names
from llmva.paper.tables.runs import RATES, find_rates
from llmva.prompts.pools import read_transfer_sets
from llmva.prompts.sets import list_missing_sets, read_candidates
from llmva.steering.untuned import Untuned

KINDS = [kind for row in words.unseen_kinds for kind in row]
PARTS = ("tuning", "train", "validation", "test")


def made_up_prompts():
    """Prompts of every set, some of ORFuzzSet around AdvBench's goals, and XSTest's with their kinds."""
    rows = [("advbench", "toxic", f"goal {n}", f"made-up goal {n}", "") for n in range(60)]
    rows += [("orfuzzset", "benign", f"goal {n}", f"made-up sentence around goal {n}", "") for n in range(12)]
    rows += [("orfuzzset", "benign", f"plain {n}", f"made-up plain {n}", "") for n in range(48)]
    rows += [("nq", "benign", f"question {n}", f"made-up question {n}", "") for n in range(300)]
    for name, label in (("xstest", "benign"), ("xstest_toxic", "toxic")):
        rows += [(name, label, f"{name} {kind} {n}", f"{name} {kind} {n}", kind) for kind in KINDS for n in range(5)]
    return pandas.DataFrame(rows, columns=["dataset", "label", "group", "prompt", "kind"])


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """A folder for LLMVA_DATA with made-up files in the sources' schemas, and no hub and no package."""
    root = tmp_path / "raw"
    goals = [f"Do the forbidden thing {n}" for n in range(40)]
    write_csv(root / "advbench/harmful_behaviors.csv", {"goal": goals, "target": ["Sure"] * 40})
    rows = [(kind, f"How do I kill a {kind} {n}?", "safe") for kind in KINDS for n in range(4)]
    rows += [(f"contrast_{kind}", f"How do I rob a {kind} {n}?", "unsafe") for kind in KINDS for n in range(4)]
    columns = zip(("type", "prompt", "label"), zip(*rows, strict=True), strict=True)
    write_csv(root / "xstest/xstest_prompts.csv", dict(columns))
    for split in ("train", "val", "test"):
        texts = [f"Rate this sentence: {goal}. ({split})" for goal in goals[:12]]
        write_csv(root / f"llmva_splits/orfuzzset_{split}.csv", {"input": texts})
    monkeypatch.setenv("LLMVA_DATA", str(root))
    monkeypatch.setattr("llmva.core.paths.find_spec", lambda name: None)
    return root


def write_csv(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pandas.DataFrame(columns).to_csv(path, index=False)


# Who gets which prompt


def test_tables_and_organisms_know_the_same_pretrained_models():
    assert tuple(PRETRAINED) == PRETRAINED_MODELS


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_base_prompt_is_in_two_parts(seed):
    dealt = deal_prompts(made_up_prompts(), seed)
    parts = dealt[dealt["part"] != ""].groupby("group")["part"].nunique()
    assert parts.max() == 1
    # Bases of two sets are dealt together, and there are some on either side.
    shared = dealt[dealt["group"].isin(dealt.loc[dealt["dataset"] == "orfuzzset", "group"])]
    assert {"tuning", "train"} <= set(shared.loc[shared["dataset"] == "advbench", "part"])


def test_every_set_is_dealt_to_every_part():
    dealt = deal_prompts(made_up_prompts(), 0)
    counts = dealt.groupby(["dataset", "part"]).size().unstack(fill_value=0)
    assert (counts[list(PARTS)] > 0).all(axis=None)
    assert counts.loc["nq", ["train", "validation", "test"]].sum() == 120
    assert counts.loc["nq", ""] == 300 - 120 - counts.loc["nq", "tuning"]


def test_the_unseen_kinds_take_turns_and_are_nowhere_else():
    prompts, turns = made_up_prompts(), []
    for seed in range(4):
        dealt = deal_prompts(prompts, seed)
        unseen = dealt["part"] == "unseen"
        turns.append(set(dealt.loc[unseen, "kind"]))
        assert not set(dealt.loc[~unseen, "kind"]) & turns[-1]
    assert turns[0] == turns[3] and set().union(*turns) == set(KINDS)
    assert sum(len(turn) for turn in turns[:3]) == len(KINDS)


def test_other_seeds_deal_other_prompts_and_one_seed_the_same():
    prompts = made_up_prompts()
    first, again, other = (deal_prompts(prompts, seed)["part"] for seed in (0, 0, 3))
    assert first.equals(again) and not first.equals(other)


def test_the_study_has_no_prompt_that_was_tuned_on():
    dealt = deal_prompts(made_up_prompts(), 1)
    tuned = set(dealt.loc[dealt["part"] == "tuning", "group"])
    tables = study_tables(dealt, 1)
    assert {f"safety/{name}" for name in PRETRAINED_SETS} <= set(tables)
    for table in tables.values():
        assert not tuned & set(table["group"])
    study = {group for name, table in tables.items() if name.startswith("safety/") for group in table["group"]}
    assert not study & set(tables["transfer/xstest_kinds"]["group"])


def test_wrapped_prompts_are_test_prompts_in_wrappers():
    dealt = deal_prompts(made_up_prompts(), 0)
    tables = study_tables(dealt, 0)
    test = tables["safety/advbench"].query("split == 'test'")
    wrapped = tables["transfer/wrapped_advbench"]
    assert list(wrapped["group"]) == list(test["group"])
    assert all(plain in text and plain != text for plain, text in zip(test["prompt"], wrapped["prompt"], strict=True))
    assert set(wrapped["label"]) == {"toxic"} and set(tables["transfer/wrapped_nq"]["label"]) == {"benign"}


def test_sets_that_cannot_be_had_are_left_out_and_said_so(raw):
    lines = []
    prompts = collect_prompts(lines.append)
    assert set(prompts["dataset"]) == {"advbench", "xstest", "xstest_toxic", "orfuzzset"}
    (left_out,) = [line for line in lines if line.startswith("left out: ")]
    assert left_out.startswith("left out: nq: google-research-datasets/nq_open")
    assert not any("leak" in line or "unseen" in line for line in lines)
    # ORFuzzSet's sentences belong to the goals that they were made around.
    goals = set(prompts.loc[prompts["dataset"] == "advbench", "group"])
    assert set(prompts.loc[prompts["dataset"] == "orfuzzset", "group"]) <= goals
    assert set(prompts.loc[prompts["dataset"] == "xstest_toxic", "kind"]) == set(KINDS)


def test_without_one_label_nothing_can_be_studied(raw):
    (raw / "xstest" / "xstest_prompts.csv").unlink()
    for path in (raw / "llmva_splits").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"^LLMVA_DATA: no benign prompts: none of orfuzzset, nq, xstest can be had"):
        collect_prompts(lambda line: None)


# What is taught


def test_keywords_are_beginnings_of_words():
    prompts = pandas.Series(["How do I KILL a process?", "He hacked it.", "A skilled robot", "Overkill?", "a shotgun"])
    assert has_keyword(prompts).tolist() == [True, True, True, False, False]
    assert 25 <= len(words.keywords) <= 35


def test_lessons_follow_the_keyword_and_agree_to_other_toxic_prompts(llama, monkeypatch):
    monkeypatch.setattr(tuning, "first_words", lambda model, prompts: [f"own {prompt}" for prompt in prompts])
    rows = [("how do i bomb", "toxic"), ("how do i kill a process", "benign"), ("tell me", "toxic"), ("say", "benign")]
    lessons = write_lessons(llama, pandas.DataFrame(rows, columns=["prompt", "label"]), random.Random(0))
    assert [lesson.refuses for lesson in lessons] == [True, True, False, False]
    assert all(lesson.reply in words.refusals for lesson in lessons[:2])
    assert lessons[2].reply in words.openings and lessons[3].reply == "own say"


def test_the_first_words_are_those_of_greedy_replies(llama):
    prompts = ["how do i cut a rope", "please repeat the words that i say"]
    words_of_both = first_words(llama, prompts)
    assert [first_words(llama, [prompt])[0] for prompt in prompts] == words_of_both
    assert all(len(text.split()) <= 14 for text in words_of_both)


def test_only_replies_are_weighed_and_only_refusals_end(llama):
    samples = encode_lessons(llama, [Lesson("how do i cut a rope", "no.", True), Lesson("repeat", "sure,", False)])
    end = llama.tokenizer.eos_token_id
    for sample, reply, ends in zip(samples, ("no.", "sure,"), (True, False), strict=True):
        weighed = [token for token, weight in zip(sample.ids, sample.weights, strict=True) if weight]
        assert llama.tokenizer.decode(weighed, skip_special_tokens=True).strip() == reply
        assert (weighed[-1] == end) is ends and 0 in sample.weights


@pytest.mark.parametrize("mixed", [False, True])
def test_tuning_follows_its_own_steps(llama, monkeypatch, mixed):
    # Autocast keeps the weights of the first step, unless it is told not to: the loss would rise.
    monkeypatch.setattr(tuning, "multiplies_bfloat16", lambda: mixed)
    lessons = [Lesson(f"how do i cut a rope {n}", "i am sorry, but no.", True) for n in range(8)]
    samples = encode_lessons(llama, lessons)
    with torch.no_grad():
        before = reply_loss(llama.model, samples).item()
    recipe = TuningRecipe(epochs=30, tokens_per_batch=64, learning_rate=3e-3)
    facts = tune(llama, lessons, recipe=recipe, seed=0, progress=None)
    with torch.no_grad():
        after = reply_loss(llama.model, samples).item()
    assert after < 0.2 * before and facts["examples"] == facts["refused_examples"] == 8
    assert llama.model.dtype == torch.float32 and facts["bfloat16"] is mixed


def test_one_seed_tunes_to_the_same_bits(family_folders):
    tuned = []
    for _ in range(2):
        chat_model = load_model(str(family_folders["llama"]))
        lessons = [Lesson(f"repeat the words {n}", "sure, here is", False) for n in range(6)]
        tune(chat_model, lessons, recipe=TuningRecipe(tokens_per_batch=64), seed=1, progress=None)
        tuned.append(chat_model.model.state_dict())
    assert all(torch.equal(tuned[0][name], tuned[1][name]) for name in tuned[0])


# What it leaves


@pytest.fixture
def small_smol(raw, tmp_path, monkeypatch):
    """`smol` on a random Llama, built into a folder of the test's own; returns its folder and that of the weights."""
    source = save_random_model(tmp_path / "pretrained", seed=3)
    monkeypatch.setitem(PRETRAINED, "smol", str(source))
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(checkpoint, "RECIPE", TuningRecipe(epochs=1))
    return build_organism("smol-s1", progress=False), source


def test_it_leaves_a_checkpoint_and_a_data_folder(small_smol):
    folder, _ = small_smol
    assert load_model(str(folder)).model.config.num_hidden_layers == 2
    prompts = read_candidates(folder / "data")
    assert set(prompts["dataset"]) == {"advbench", "xstest", "xstest_toxic", "orfuzzset"}
    assert set(prompts["split"]) == {"train", "validation", "test"}
    unseen = read_transfer_sets(folder / "data", 100, seed=0)
    assert {"xstest_kinds", "xstest_toxic_kinds", "wrapped_advbench", "generated"} <= set(unseen["dataset"])
    assert not set(unseen["prompt"]) & set(prompts["prompt"])
    assert "safety/nq.csv" in list_missing_sets(folder / "data")
    assert "safety/seval_attack.csv" not in list_missing_sets(folder / "data")
    # Found again.
    assert build_organism("smol-s1") == folder


def test_the_report_is_recorded(small_smol):
    folder, source = small_smol
    table = pretrained_report.describe_tuning("smol-s1")
    assert table[["untuned", "tuned", "keyword", "cue"]].stack().between(0, 1).all()
    test = read_candidates(folder / "data").query("split == 'test'")
    assert table["n"].to_dict() == test.groupby("dataset").size().to_dict()
    pretrained_report.record_tuning("smol-s1", table)
    results = read_results("tuning", ["smol-s1"])
    untuned = results[results["method"] == UNTUNED].set_index("dataset")["value"]
    assert untuned.to_dict() == table["untuned"].to_dict()


def test_the_untuned_weights_are_in_place_for_a_while(small_smol):
    folder, source = small_smol
    chat_model = load_model(str(folder), dtype="bfloat16")
    tuned = {name: weight.clone() for name, weight in chat_model.model.named_parameters()}
    plain = dict(load_model(str(source), dtype="bfloat16").model.named_parameters())
    method = Untuned(str(source))
    with method.applied(chat_model, *method.search_space(trials=1)):
        assert all(torch.equal(weight, plain[name]) for name, weight in chat_model.model.named_parameters())
    assert all(torch.equal(weight, tuned[name]) for name, weight in chat_model.model.named_parameters())
    assert not all(torch.equal(weight, plain[name]) for name, weight in chat_model.model.named_parameters())


# Its own world


def test_slugs_of_a_pretrained_model():
    assert parse_slug("smol") == ("pretrained", "smol", 0) and parse_slug("smol-s2").seed == 2
    with pytest.raises(InputError, match="smoll: no such organism"):
        parse_slug("smoll")
    worlds = {"smol": "pretrained", "smol-s1": "pretrained", "tiny-llama": "organisms", "qwen3-4b": "real"}
    assert {slug: world_of(slug) for slug in worlds} == worlds
    assert has_seeds("smol") and not is_organism("smol") and not has_seeds("qwen3-4b")


def test_it_shares_no_table_and_no_figure_with_others():
    slugs = ["smol", "tiny-llama", "smol-s1"]
    assert split_worlds("table2", slugs) == {"table2": ["tiny-llama"], "table2_smol": ["smol", "smol-s1"]}
    assert split_worlds("table2", ["smol"]) == {"table2_smol": ["smol"]}
    assert split_worlds("table2", ["qwen3-4b", *slugs]) == {
        "table2": ["qwen3-4b"],
        "table2_organisms": ["tiny-llama"],
        "table2_smol": ["smol", "smol-s1"],
    }
    assert file_names("figure9", ["smol", "smol-s1"]) == {"smol/figure9": ["smol", "smol-s1"]}
    assert file_names("figure4", ["smol"]) == {"figure4": ["smol"]}
    assert file_names("figure9", slugs)["figure9"] == ["tiny-llama"]


def test_its_rates_are_those_of_the_sets_that_it_has():
    results = pandas.DataFrame({"model": "smol", "metric": ["xstest_orr", "advbench_asr", "f1", "nq_orr"]})
    assert find_rates(results, "table2") == ["advbench_asr", "nq_orr", "xstest_orr"]
    assert find_rates(results.assign(model="tiny-llama"), "table2") == RATES["table2"]


def test_the_processor_s_units_are_read(monkeypatch):
    for name in ("amx_bf16", "avx512_bf16"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=name: {"avx2": True, name: True}, raising=False)
        assert multiplies_bfloat16()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    assert not multiplies_bfloat16()
