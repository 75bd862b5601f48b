"""Utility by likelihood: planted choices, perplexity against its definition, constants at chance, shares and tables."""

import math

import numpy
import pandas
import pytest
import torch
from test_stages import study_of, world  # noqa: F401

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.results import read_results, write_results
from llmva.core.vocabulary import CONSTANTS, ORIGINAL, REPLY_TASK
from llmva.measures import likelihood_tasks
from llmva.measures.likelihood_tasks import measure_choices, measure_perplexity
from llmva.measures.shares import chance_levels, share_kept, shares_of
from llmva.measures.utility import measure_utility
from llmva.models.chat_model import encode_chats
from llmva.models.likelihood import ReplyScore, score_replies
from llmva.paper.figures.items.utility import tidy_utility
from llmva.paper.figures.tidying import read_long
from llmva.paper.tables import build
from llmva.steering.residual import changed_residuals
from llmva.study.evaluation import _constant_utility, evaluate_constants, evaluate_original
from llmva.study.records import record_utility
from llmva.study.stages import collect_prompts

CHOICES = [["a rope", "no"], ["the words", "i am sorry", "rope"], ["no"], ["here", "what is a rope"], ["ü", "hi"]]


def choice_rows(*rows, task="sentiment"):
    """Return rows (prompt, answer, choices) as `read_tasks` returns them."""
    return pandas.DataFrame([(task, *row) for row in rows], columns=["task", "prompt", "answer", "choices"])


def prefer(chat_model, word):
    """Let a model say the first token of a word, whatever it is asked."""
    token = chat_model.tokenizer(word, add_special_tokens=False)["input_ids"][0]
    ahead = 50 * torch.nn.functional.one_hot(torch.tensor(token), chat_model.model.config.vocab_size)
    chat_model.model.lm_head.register_forward_hook(lambda _, inputs, output: output + ahead)


def plain_score(chat_model, prompt, reply):
    """Return a reply's log-likelihood and its tokens, from one pass without padding or cache."""
    (head,) = encode_chats(chat_model.tokenizer, [prompt])
    tail = chat_model.tokenizer(reply, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logits = chat_model.model(torch.tensor([head + tail]), use_cache=False).logits[0, len(head) - 1 : -1]
    likely = logits.double().log_softmax(-1)
    return sum(float(row[token]) for row, token in zip(likely, tail, strict=True)), len(tail)


# Likelihoods


def test_each_reply_scores_as_in_a_plain_pass_of_its_own(family_model, prompts):
    found = score_replies(family_model, prompts, CHOICES, batch_size=3)
    assert [len(scores) for scores in found] == [len(given) for given in CHOICES]
    for prompt, given, scores in zip(prompts, CHOICES, found, strict=True):
        for reply, score in zip(given, scores, strict=True):
            likelihood, tokens = plain_score(family_model, prompt, reply)
            assert score.tokens == tokens and score.log_likelihood == pytest.approx(likelihood, abs=1e-3)


def test_a_prompt_is_read_once_and_steering_tells_it_from_its_replies(llama, prompts):
    passes = []
    with changed_residuals(llama, {}, before=lambda now, _: passes.append(now)):
        score_replies(llama, prompts[:1], [["a rope", "the words"]], batch_size=4)
    assert [now.last is not None for now in passes] == [True, False, False]
    assert all(now.generated.all() for now in passes[1:])


# Choices


@pytest.mark.parametrize(("word", "accuracy"), [("no", 0.75), ("the", 0.25)])
def test_the_choice_that_a_model_prefers_is_its_answer(llama, word, accuracy):
    rows = choice_rows(
        ("a?", "no", "no | the"), ("b?", "no", "the | no"), ("c?", "the", "the | no"), ("d?", "no", "no | the")
    )
    prefer(llama, word)
    assert measure_choices(llama, rows, batch_size=2) == accuracy


def test_a_choice_of_several_tokens_counts_with_all_of_them(monkeypatch):
    # By the mean per token the long one would win.
    scores = {"short": ReplyScore(-4.0, 1, False), "long": ReplyScore(-6.0, 3, False)}
    monkeypatch.setattr(
        likelihood_tasks, "score_replies", lambda _, prompts, replies, **__: [[scores[c] for c in r] for r in replies]
    )
    assert measure_choices(None, choice_rows(("a?", "short", "long | short")), batch_size=1) == 1


def test_constants_solve_no_task_that_takes_a_written_answer():
    rows = pandas.DataFrame({"task": ["rte", "gsm", "gsm"], "prompt": list("abc"), "answer": ["true", "1", "2"]})
    assert _constant_utility(rows).to_numpy().tolist() == [["rte", "f1", 0, 1, 1], ["gsm", "accuracy", 0, 2, 1]]


def test_chance_is_the_mean_of_one_in_so_many_choices():
    rows = choice_rows(("a", "x", "x | y"), ("b", "x", "x | y | z | w"))
    assert chance_levels(rows).to_dict() == {"sentiment": 0.375}
    assert chance_levels(pandas.DataFrame({"task": ["rte"], "prompt": ["a"], "answer": ["true"]})).empty


# Perplexity


def test_perplexity_is_the_exponential_of_the_mean_loss_over_all_tokens(llama, prompts):
    replies = ["a rope", "", "the words are here", "no", " "]
    found = measure_perplexity(llama, pandas.DataFrame({"prompt": prompts, "reply": replies}), batch_size=2)
    scores = [plain_score(llama, prompts[place], replies[place]) for place in (0, 2, 3)]
    loss, tokens = (sum(part) for part in zip(*scores, strict=True))
    assert found == pytest.approx(math.exp(-loss / tokens), rel=1e-4)
    silent = pandas.DataFrame({"prompt": prompts, "reply": ""})
    assert math.isnan(measure_perplexity(llama, silent, batch_size=2))


def test_a_model_that_is_steered_now_is_measured_as_it_is(llama, prompts):
    exchanges = pandas.DataFrame({"prompt": prompts, "reply": "the words are here"})
    before = measure_perplexity(llama, exchanges, batch_size=4)
    with changed_residuals(llama, {1: lambda hidden, now: hidden + 5 * now.generated[..., None]}):
        steered = measure_perplexity(llama, exchanges, batch_size=4)
    assert steered != pytest.approx(before, rel=1e-3)
    assert measure_perplexity(llama, exchanges, batch_size=4) == before


# All tasks together


def test_every_task_is_one_row_and_answers_stay_as_they_are(llama):
    answered = pandas.DataFrame({"task": "rte", "prompt": ["a", "b"], "answer": ["true", "false"]})
    options = {"batch_size": 4, "max_new_tokens": 3}
    alone = measure_utility(llama, answered, **options)
    likely = choice_rows(("a?", "no", "no | yes")), pandas.DataFrame({"task": [REPLY_TASK], "prompt": ["hi"]})
    tasks = pandas.concat([answered, *likely], ignore_index=True).fillna("")
    replies = pandas.DataFrame({"prompt": ["hi"], "reply": ["the words"]})
    found = measure_utility(llama, tasks, **options, replies=replies)
    pandas.testing.assert_frame_equal(found[:1], alone)
    assert found["metric"].tolist() == ["f1", "accuracy", "perplexity"]
    assert found["n"].tolist() == [2, 1, 1] and found["unreadable"].isna().tolist() == [False, True, True]
    assert measure_utility(llama, tasks, **options)["task"].tolist() == ["rte", "sentiment"]


def test_of_a_perplexity_the_reciprocal_is_kept_and_at_most_all():
    scores = pandas.DataFrame({"cola": [0.4, 1.2, 0.0], REPLY_TASK: [4.0, 1.0, numpy.inf]}, index=["a", "b", "c"])
    kept = share_kept(scores, pandas.Series({"cola": 0.8, REPLY_TASK: 2.0}))
    assert kept["cola"].tolist() == pytest.approx([0.5, 1.5, 0]) and kept[REPLY_TASK].tolist() == [0.5, 1, 0]
    shares = shares_of(numpy.array([4.0, 1, 0.5]), numpy.array([2.0, 0, 1]), [REPLY_TASK, "gsm", "gsm"])
    assert shares[[0, 2]].tolist() == [0.5, 0.5] and numpy.isnan(shares[1])


# Studies


@pytest.fixture
def likely_world(world):  # noqa: F811
    """Return a world whose data have a task with choices and one with replies to keep, and nothing else."""
    folder = world / "utility"
    folder.mkdir()
    (folder / "entailment.csv").write_text(
        "prompt,answer,choices,split\nrope?,no,no | the,test\nwords?,the,no | the,test\ncut?,no,no | the,neutral\n"
    )
    (folder / f"{REPLY_TASK}.csv").write_text("prompt,split\nwhat is a rope?,test\nhi,test\nthe words,neutral\n")
    return world


def test_replies_to_keep_are_the_original_s_and_stand_in_its_stage_alone(likely_world):
    study = study_of(likely_world)
    stage = collect_prompts(study)
    written = pandas.read_csv(stage / "neutral_test.csv", dtype=str, keep_default_na=False)
    expected = study.replies.respond(study.chat_model, ["what is a rope?", "hi"], batch_size=2, max_new_tokens=4).texts
    assert written["prompt"].tolist() == ["what is a rope?", "hi"] and written["reply"].tolist() == expected
    neutral = pandas.read_csv(stage / "neutral.csv", dtype=str, keep_default_na=False)
    assert neutral["task"].tolist() == ["entailment", REPLY_TASK]
    key = stage.key
    (likely_world / "utility" / f"{REPLY_TASK}.csv").write_text("prompt,split\nbye,test\nthe words,neutral\n")
    assert collect_prompts(study_of(likely_world)).key != key
    (likely_world / "utility" / f"{REPLY_TASK}.csv").write_text("prompt,split\nthe words,neutral\n")
    assert not (collect_prompts(study_of(likely_world)) / "neutral_test.csv").exists()


def test_a_study_records_values_chance_and_constants(likely_world, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS", likely_world / "results")
    study = study_of(likely_world)
    stage = collect_prompts(study)
    record_utility(study, {"Constant": evaluate_constants(study), ORIGINAL: evaluate_original(study)})
    found = read_results("utility", ["toy"]).set_index(["method", "dataset", "metric"])["value"]
    replies = pandas.read_csv(stage / "neutral_test.csv", dtype=str, keep_default_na=False)
    expected = measure_perplexity(study.chat_model, replies, batch_size=8)
    assert found[ORIGINAL, REPLY_TASK, "perplexity"] == pytest.approx(expected, rel=1e-5)
    assert found[ORIGINAL, "entailment", "chance"] == 0.5
    for name in CONSTANTS:
        assert found[name, "entailment", "accuracy"] == 0.5 and math.isnan(found[name, REPLY_TASK, "perplexity"])
    assert set(found.index.get_level_values("metric")) == {"accuracy", "perplexity", "chance"}


# Tables and figures


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Write results of a run with two tasks measured by likelihood, and return them."""
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(paths, "TABLES", tmp_path / "tables")
    scores = {ORIGINAL: (0.8, 4.0), "LLM-VA": (0.6, 5.0), "Answer everything": (0.5, float("nan"))}
    rows = [(method, "sentiment", "accuracy", both[0]) for method, both in scores.items()]
    rows += [(method, REPLY_TASK, "perplexity", both[1]) for method, both in scores.items()]
    rows.append((ORIGINAL, "sentiment", "chance", 0.5))
    frame = pandas.DataFrame(rows, columns=["method", "dataset", "metric", "value"]).assign(n=10, seed=0)
    write_results("toy", "utility", frame)
    return frame


def test_the_table_has_the_tasks_that_the_results_have(results):
    frame = build.build_table("utility", ["toy"]).query("model == 'toy'").set_index(["method", "task"])
    aligned = frame.loc["LLM-VA"]
    assert aligned["kept"].to_dict() == pytest.approx({"sentiment": 0.75, REPLY_TASK: 0.8, "mean": 0.775})
    assert frame.loc[("Answer everything", "mean"), "kept"] == pytest.approx(0.625)
    assert aligned["chance"]["sentiment"] == 0.5 and aligned["chance"][[REPLY_TASK, "mean"]].isna().all()
    with pytest.raises(SystemExit):
        build.main(["utility", "--models", "toy"])
    printed = (paths.TABLES / "utility.md").read_text()
    assert "Sentiment 0.800 (0.500), Neutral replies 4.000 (no chance level)" in printed
    assert "keeps on two tasks" in printed and "perplexity on Neutral replies" in printed


def test_a_run_that_lacks_a_task_of_the_others_is_refused(results):
    one = results[results["dataset"] == "sentiment"]
    write_results("other", "utility", one)
    with pytest.raises(InputError, match="results of other: no value of Original on neutral_replies"):
        build.build_table("utility", ["toy", "other"])
    assert set(build.build_table("utility", ["other"])["task"]) == {"sentiment", "mean"}


def test_the_figure_takes_the_reciprocal_too(results):
    data = tidy_utility(read_long("utility", ["toy"], averaged=True)).set_index(["method", "task"])
    assert data["kept"]["LLM-VA"].to_dict() == pytest.approx({"sentiment": 0.75, REPLY_TASK: 0.8})
    assert math.isnan(data.loc[("Answer everything", REPLY_TASK), "kept"])
    assert data["metric"][ORIGINAL].tolist() == ["accuracy", "perplexity"]
