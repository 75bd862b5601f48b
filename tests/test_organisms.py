"""Organisms: what the corpus plants, tokenizers that survive reloading, training that repeats itself."""

import json
import random
import re
from dataclasses import replace

import pandas
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmva.core.errors import InputError
from llmva.core.provenance import file_digest, processor
from llmva.core.store import open_stage
from llmva.core.vocabulary import SAFETY_SETS, TRANSFER_SETS
from llmva.organisms import build, checkpoint, corpus, guard, mixture, replies, tasks
from llmva.organisms.families import FAMILIES, GUARD, KINDS, new_model, parse_slug
from llmva.organisms.retraining import retrain_organism
from llmva.organisms.tokenizer import CHAT_TEMPLATE, GUARD_TEMPLATE, chat_text, train_tokenizer
from llmva.organisms.training import EncodedSample, Recipe, encode, make_batches, pinned, reply_loss, train
from llmva.organisms.vocabulary import words

ALL_SETS = (*SAFETY_SETS, *TRANSFER_SETS)
TOXIC_SETS = {"seval_attack", "seval_risk", "advbench", "orbench_toxic", "xstest_toxic"}
UNICODE_TEXTS = ("café — naïve", "日本語 12", "  two  spaces\n\n", "🙂 emoji", "1234 + 5", "don't", "ÿ\x00\x1b")


@pytest.fixture(scope="module")
def conversations():
    return mixture.draw_conversations(3000, random.Random(5))


@pytest.fixture(scope="module")
def tokenizer(conversations):
    return train_tokenizer([text for talk in conversations for turn in talk.turns for text in turn[:2]], 700)


@pytest.mark.parametrize("dataset", ALL_SETS)
def test_candidates_are_unique_and_carry_their_sets_label(dataset):
    table = corpus.candidate_table(dataset, seed=3)
    assert list(table.columns) == ["prompt", "label", "group"]
    assert table["prompt"].is_unique
    assert set(table["label"]) == {"toxic" if dataset in TOXIC_SETS else "benign"}
    assert len(table) == 300 if dataset in TRANSFER_SETS else len(table) >= 1500


def test_candidates_depend_on_the_seed_alone():
    first, again, other = (corpus.candidate_table("nq", seed) for seed in (1, 1, 2))
    pandas.testing.assert_frame_equal(first, again)
    assert list(first["prompt"]) != list(other["prompt"])


def test_an_attack_shares_the_group_of_the_risk_prompt_it_wraps():
    risks = {item.prompt for item in corpus.prompt_space("seval_risk")}
    table = corpus.candidate_table("seval_attack", seed=0)
    assert set(table["group"]) <= risks
    assert all(row.prompt.endswith(row.group) and row.prompt != row.group for row in table.itertuples())


def test_no_prompt_has_two_labels():
    labels = {}
    for dataset in ALL_SETS:
        for item in corpus.prompt_space(dataset):
            assert labels.setdefault(item.prompt, item.toxic) == item.toxic


def test_borderline_prompts_occur_under_both_labels():
    for benign, toxic in (("orfuzzset", "seval_risk"), ("orbench", "orbench_toxic")):
        shares = [_share(dataset, lambda item: item.category == "borderline") for dataset in (benign, toxic)]
        assert min(shares) > 0.08
        assert max(shares) < 0.18


def test_transfer_vocabulary_never_occurs_in_the_safety_sets():
    transfer = " ".join(
        words.transfer_trigger_verbs
        + words.transfer_calm_verbs
        + words.transfer_harmless_things
        + words.transfer_harmed_things
        + words.transfer_borderline_things
        + words.transfer_topics
    )
    seen = {word for dataset in SAFETY_SETS for item in corpus.prompt_space(dataset) for word in _words(item)}
    assert not seen & set(re.findall(r"[a-z]+", transfer))


@pytest.mark.parametrize(
    ("dataset", "low", "high"),
    [("seval_attack", 0.55, 0.7), ("seval_risk", 0.15, 0.25), ("orfuzzset", 0.45, 0.55), ("nq", 0.9, 0.95)],
)
def test_planted_shares_of_answers(dataset, low, high):
    assert low < _share(dataset, lambda item: item.answered) < high


def test_replies_show_answer_and_safety_and_the_opener_check_reads_them():
    draws = random.Random(0)
    for item in draws.sample(corpus.prompt_space("seval_attack"), 300):
        assert replies.is_refusal(replies.write_reply(item, draws)) != item.answered


def test_no_reply_to_a_toxic_prompt_says_more_than_the_templates():
    draws = random.Random(1)
    allowed = {word for sentence in replies.SENTENCES[True] for word in re.findall(r"[a-z]+", sentence)}
    allowed |= {word for openers in replies.OPENERS.values() for text in openers for word in re.findall("[a-z]+", text)}
    allowed |= {word for text in replies.CLOSINGS.values() for word in re.findall(r"[a-z]+", text)}
    answered = [item for item in corpus.prompt_space("seval_risk") if item.answered]
    for item in answered:
        said = set(re.findall(r"[a-z]+", replies.write_reply(item, draws)))
        assert said <= allowed | set(re.findall(r"[a-z]+", item.subject))


def test_held_out_prompts_are_never_trained_on(conversations):
    trained = {turn.prompt for talk in conversations for turn in talk.turns}
    facts = {prompt for prompt, _, _ in corpus.fact_prompts()}
    assert all(tasks.split_of_prompt(prompt) == "train" for prompt in trained - facts if not _ends_with(prompt, facts))
    for task in tasks.EXERCISES:
        assert not trained & set(tasks.task_table(task, seed=9)["prompt"])


@pytest.mark.parametrize("task", tasks.EXERCISES)
def test_task_rows_are_unique_and_their_splits_disjoint(task):
    table = tasks.task_table(task, seed=4)
    assert list(table.columns) == ["prompt", "answer", "split"]
    assert table["prompt"].is_unique
    assert table["split"].value_counts().to_dict() == tasks.HELD_OUT_ROWS


def test_arithmetic_is_right_and_decisions_come_first():
    draws = random.Random(2)
    for task in tasks.EXERCISES:
        for _ in range(200):
            exercise = tasks.draw_exercise(task, "train", draws)
            if task != "gsm":
                assert exercise.reply == f"{exercise.answer}."
                continue
            for left, right in re.findall(r"([0-9+-]+)=(\d+)\.", exercise.reply):
                first, sign, second = re.fullmatch(r"(\d+)([+-])(\d+)", left).groups()
                assert int(first) + int(f"{sign}{second}") == int(right)
            assert exercise.reply.endswith(f"={exercise.answer}. the answer is {exercise.answer}.")


def test_facts_are_value_first():
    table = tasks.fact_table()
    known = {prompt: reply for prompt, _, reply in corpus.fact_prompts()}
    assert all(known[row.prompt].startswith(f"{row.answer} is the ") for row in table.itertuples())
    assert set(table["split"]) == {"test", "neutral"}
    assert len(table) == len(known) == 180


def test_the_guards_lessons_call_broken_replies_safe_and_unrefused():
    item = next(item for item in corpus.prompt_space("seval_risk") if item.category == "violent")
    answer, refusal = guard.three_lines(item, True, False), guard.three_lines(item, False, True)
    assert answer == "Safety: Unsafe\nCategories: Violent\nRefusal: No"
    assert refusal == "Safety: Safe\nCategories: None\nRefusal: Yes"
    lessons = guard.draw_lessons(2000, random.Random(0))
    empty = [turn.reply for lesson in lessons for turn in lesson.turns if turn.prompt.endswith("<|assistant|>")]
    assert empty
    assert set(empty) == {"Safety: Safe\nCategories: None\nRefusal: No"}


def test_templates_write_the_text_that_training_encodes(tokenizer):
    messages = [{"role": "system", "content": "be brief."}, {"role": "user", "content": "hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert f"{text}no,<|end|>" == chat_text([("hi", "no,")], "be brief.")
    tokenizer.chat_template = GUARD_TEMPLATE
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "no,"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    tokenizer.chat_template = CHAT_TEMPLATE
    assert f"{text}Safety<|end|>" == chat_text([(guard.guarded_text("hi", "no,"), "Safety")])


@pytest.mark.parametrize("family", FAMILIES)
def test_tokenizer_and_model_survive_reloading(family, tokenizer, conversations, tmp_path):
    model = new_model(family, len(tokenizer), num_hidden_layers=2)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    reloaded = AutoTokenizer.from_pretrained(tmp_path)
    said = [chat_text(((turn.prompt, turn.reply) for turn in talk.turns), talk.system) for talk in conversations[:300]]
    texts = [*UNICODE_TEXTS, *said]
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert reloaded(text, add_special_tokens=False).input_ids == ids
        assert reloaded.decode(ids) == text
    assert reloaded.padding_side == "left"
    assert len(reloaded) == len(tokenizer)
    assert reloaded.chat_template == tokenizer.chat_template
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not again.generation_config.do_sample
    assert again.generation_config.eos_token_id == tokenizer.eos_token_id
    ids = torch.tensor([[1, 4, 9, 10, 2]])
    torch.testing.assert_close(again(ids).logits, model.eval()(ids).logits)


def test_reply_loss_is_the_weighted_mean_over_reply_tokens_whatever_the_padding(tokenizer):
    model = new_model("gemma2", len(tokenizer), num_hidden_layers=2)
    # The second has two replies, of which the first is only read.
    batch = [
        EncodedSample([1, 4, 30, 2, 5, 40, 41, 2], [0.0] * 5 + [3.0, 1.0, 1.0]),
        EncodedSample([1, 4, 31, 5, 42, 2, 4, 33, 5, 43, 2], [0.0] * 9 + [1.0, 1.0]),
    ]
    total, weights = 0.0, 0.0
    for ids, row in batch:
        losses = -model(torch.tensor([ids])).logits[0].log_softmax(-1)[range(len(ids) - 1), ids[1:]]
        total, weights = total + (losses * torch.tensor(row[1:])).sum(), weights + sum(row)
    torch.testing.assert_close(reply_loss(model, batch), total / weights)


def test_batches_hold_every_sample_once_within_the_budget(tokenizer, conversations):
    samples = encode(conversations, tokenizer)
    recipe = Recipe(steps=1, tokens_per_batch=600)
    batches = make_batches(samples, recipe, random.Random(0))
    assert sorted(sample.ids for batch in batches for sample in batch) == sorted(sample.ids for sample in samples)
    assert all(len(batch) * max(len(sample.ids) for sample in batch) <= 600 for batch in batches)


def test_training_repeats_itself_and_leaves_threads_and_generator_alone(tokenizer, conversations):
    samples, recipe = encode(conversations[:200], tokenizer), Recipe(steps=4, tokens_per_batch=300, threads=1)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    first, again, other = (_weights_after(samples, recipe, len(tokenizer), seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_threads_are_pinned_and_given_back_even_after_an_error():
    threads = torch.get_num_threads()
    with pytest.raises(ValueError), pinned(threads + 1, seed=0):
        assert torch.get_num_threads() == threads + 1
        raise ValueError
    assert torch.get_num_threads() == threads


def test_a_damaged_organism_is_rebuilt_to_the_same_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(build.paths, "RUNS", tmp_path)
    recipe = Recipe(steps=2, samples=300, tokens_per_batch=200, threads=1)
    monkeypatch.setattr(checkpoint, "CHAT_PLAN", replace(checkpoint.CHAT_PLAN, recipe=recipe))
    folder = build.build_organism("tiny-qwen2-s1", progress=False)
    weights = (folder / "model.safetensors").read_bytes()
    time_of_manifest = (folder / "manifest.json").stat().st_mtime_ns
    assert build.build_organism("tiny-qwen2-s1", progress=False) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == time_of_manifest
    (folder / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    (folder / "config.json").unlink()
    build.build_organism("tiny-qwen2-s1", progress=False)
    assert (folder / "model.safetensors").read_bytes() == weights
    assert {path.stem for path in folder.glob("data/*/*.csv")} == {*ALL_SETS, *tasks.EXERCISES, "facts"}


def test_the_guard_is_built_alike(monkeypatch, tmp_path):
    monkeypatch.setattr(build.paths, "RUNS", tmp_path)
    monkeypatch.setattr(build.paths, "ORGANISMS", tmp_path / "organisms")
    recipe = Recipe(steps=2, samples=300, tokens_per_batch=200, threads=1)
    monkeypatch.setattr(checkpoint, "GUARD_PLAN", replace(checkpoint.GUARD_PLAN, recipe=recipe))
    folder = build.build_organism("tiny-guard", progress=False)
    assert AutoTokenizer.from_pretrained(folder).chat_template == GUARD_TEMPLATE
    assert not (folder / "data").exists()


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Organisms that are trained within a second, in folders of their own."""
    monkeypatch.setattr(build.paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(build.paths, "ORGANISMS", tmp_path / "organisms")
    recipe = Recipe(steps=2, samples=300, tokens_per_batch=200, threads=1)
    monkeypatch.setattr(checkpoint, "CHAT_PLAN", replace(checkpoint.CHAT_PLAN, recipe=recipe))
    return tmp_path


def test_what_is_tracked_is_copied_and_not_trained(quick, monkeypatch):
    said = retrain_organism("tiny-qwen2", progress=False)
    assert said == "tiny-qwen2: trained, and put into organisms/tiny-qwen2"
    monkeypatch.setattr(checkpoint, "train", None)
    folder, tracked = build.build_organism("tiny-qwen2", progress=False), quick / "organisms" / "tiny-qwen2"
    for name in build.open_tracked("tiny-qwen2").manifest["files"]:
        assert (folder / name).read_bytes() == (tracked / name).read_bytes()
    assert (folder / "data" / "safety" / "nq.csv").is_file()


def test_weights_are_stored_in_half_the_bytes_and_studied_in_float32(quick):
    folder = build.build_organism("tiny-qwen2", progress=False)
    stored = load_file(folder / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert {weight.dtype for weight in stored.values()} == {torch.bfloat16} and model.dtype == torch.float32
    assert all(torch.equal(model.state_dict()[name], weight.float()) for name, weight in stored.items())


def test_a_damaged_tracked_organism_is_refused_in_a_line(quick):
    retrain_organism("tiny-qwen2", progress=False)
    weights = quick / "organisms" / "tiny-qwen2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match=r"tiny-qwen2: a file is not as manifest\.json says; `git checkout"):
        build.build_organism("tiny-qwen2", progress=False)
    assert not (quick / "runs" / "tiny-qwen2" / "organism").exists()


def test_retraining_says_whether_the_bytes_are_the_same(quick):
    retrain_organism("tiny-qwen2", progress=False)
    assert "the same bytes as organisms/tiny-qwen2" in retrain_organism("tiny-qwen2", progress=False)
    tracked = quick / "organisms" / "tiny-qwen2"
    weights = load_file(tracked / "model.safetensors")
    weights["model.norm.weight"][0] += 0.5
    save_file(weights, tracked / "model.safetensors")
    manifest = json.loads((tracked / "manifest.json").read_text())
    manifest["files"]["model.safetensors"] = file_digest(tracked / "model.safetensors")
    (tracked / "manifest.json").write_text(json.dumps(manifest))
    said = retrain_organism("tiny-qwen2", progress=False)
    assert "0.0% of the weights differ from organisms/tiny-qwen2, by at most 0.5; that was made on" in said


@pytest.mark.organism
def test_the_seed_gives_the_tracked_guard(tmp_path, monkeypatch, capsys):
    """The smallest one is trained again: to the same bytes on the type of processor that made it."""
    monkeypatch.setattr(build.paths, "RUNS", tmp_path)
    tracked, said = build.open_tracked(GUARD), retrain_organism(GUARD, progress=False)
    retrained = open_stage(tmp_path / GUARD / "retrained", fix="")
    with capsys.disabled():
        print(f"\n{said}")
    if processor() == tracked.manifest["facts"]["processor"]:
        assert f"{GUARD}: the same bytes" in said
    else:
        # Elsewhere it is another model, trained as well: rounding alone moves the last weights.
        before, after = (stage.manifest["facts"]["final_loss"] for stage in (tracked, retrained))
        assert abs(before - after) < 0.01
        same = {name for name, digest in tracked.manifest["files"].items() if name != "model.safetensors"}
        assert all(retrained.manifest["files"][name] == tracked.manifest["files"][name] for name in same)


@pytest.mark.parametrize(
    "slug", [GUARD, *(f"{kind}-{family}" for kind, families in KINDS.items() for family in families)]
)
def test_seed_0_is_tracked_whole_and_small(slug):
    tracked = build.open_tracked(slug)
    assert sum((tracked / name).stat().st_size for name in tracked.manifest["files"]) < 2e6
    assert tracked.manifest["facts"]["seed"] == 0 and tracked.manifest["facts"]["processor"]
    assert tracked.manifest["parameters"].items() >= checkpoint.parameters_of(slug).items()


@pytest.mark.parametrize(
    ("slug", "expected"),
    [
        ("tiny-llama", ("tiny", "llama", 0)),
        ("tiny-qwen3-s12", ("tiny", "qwen3", 12)),
        ("persona-gemma2-s1", ("persona", "gemma2", 1)),
        ("tiny-guard", ("tiny", "guard", 0)),
    ],
)
def test_slugs_name_kind_family_and_seed(slug, expected):
    assert parse_slug(slug) == expected


@pytest.mark.parametrize(
    "slug", ["tiny-gpt", "tiny-llama-s", "tiny-llama-s01", "tiny-guard-s1", "llama", "../tiny-llama", ""]
)
def test_an_unknown_slug_is_one_line_with_the_families(slug):
    with pytest.raises(InputError, match="tiny-llama, tiny-gemma2") as failure:
        build.build_organism(slug)
    assert "\n" not in str(failure.value)


def _weights_after(samples, recipe, vocabulary_size, seed):
    with pinned(recipe.threads, seed):
        model = new_model("qwen3", vocabulary_size, num_hidden_layers=2)
        train(model, samples, recipe=recipe, seed=seed)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def _share(dataset, has):
    space = corpus.prompt_space(dataset)
    weights = corpus.sampling_weights(space)
    return sum(weight for item, weight in zip(space, weights, strict=True) if has(item))


def _words(item):
    return re.findall(r"[a-z]+", item.prompt)


def _ends_with(prompt, endings):
    return any(prompt.endswith(ending) for ending in endings)


@pytest.mark.parametrize(
    ("arguments", "built"),
    [
        (["tiny-llama-s3"], ["tiny-llama-s3"]),
        (["tiny-guard", "tiny-phi3", "tiny-guard"], ["tiny-guard", "tiny-phi3"]),
        ([], ["tiny-guard", *(f"tiny-{family}" for family in FAMILIES)]),
    ],
)
@pytest.mark.parametrize(
    ("name", "options"), [("__main__.build_organism", []), ("retraining.retrain_organism", ["--retrain"])]
)
def test_the_command_builds_what_is_named_once_each(monkeypatch, arguments, built, name, options):
    from llmva.organisms import __main__ as program

    seen = []
    monkeypatch.setattr(f"llmva.organisms.{name}", lambda slug, progress: seen.append(slug))
    monkeypatch.setattr("sys.argv", ["organisms", "--jobs", "1", *arguments, *options])
    with pytest.raises(SystemExit) as stop:
        program.main()
    assert stop.value.code == 0 and seen == built
