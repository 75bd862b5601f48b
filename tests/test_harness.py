"""The harness asks our way: the same replies, exact likelihoods, its own task definitions, no network and no noise."""

import functools
import socket

import pandas
import pytest
import torch
from lm_eval.api.instance import Instance
from tqdm import tqdm

from llmva.core.errors import InputError
from llmva.engines.greedy import respond
from llmva.measures.harness import HarnessModel, LocalTask, load_standard_tasks, log_samples
from llmva.models.chat_model import encode_chats
from llmva.steering.residual import changed_residuals

CONTINUATIONS = ["sure, here is what you asked for.", " no", "i am sorry", "ünïcode 🪢", ""]


def wrap(chat_model, batch_size=3, max_new_tokens=6, **options):
    """Return a model as the harness sees it."""
    return HarnessModel(chat_model, batch_size=batch_size, max_new_tokens=max_new_tokens, **options)


def ask(kind, *arguments):
    """Return requests of the harness."""
    return [Instance(kind, {}, row, 0) for row in zip(*arguments, strict=True)]


def test_replies_are_those_of_respond_with_edits_and_hooks_in_place(family_model, prompts):
    table = pandas.DataFrame({"prompt": prompts, "answer": "x"})
    before = respond(family_model, prompts, max_new_tokens=6, batch_size=3).texts
    step = 5 * torch.randn(48, generator=torch.Generator().manual_seed(0))
    with changed_residuals(family_model, {1: lambda hidden, _: hidden + step}):
        logged = log_samples(wrap(family_model), {"local": LocalTask("local", table)})["local"]
        steered = respond(family_model, prompts, max_new_tokens=6, batch_size=3).texts
    assert [sample["filtered_resps"][0] for sample in logged] == steered != before
    assert [sample["doc"]["prompt"] for sample in logged] == prompts


def test_a_likelihood_is_that_of_one_plain_pass_without_padding_or_cache(family_model, prompts):
    scores = wrap(family_model).loglikelihood(ask("loglikelihood", prompts, CONTINUATIONS))
    heads = encode_chats(family_model.tokenizer, prompts)
    for head, continuation, (likelihood, greedy) in zip(heads, CONTINUATIONS, scores, strict=True):
        tail = family_model.tokenizer(continuation.strip(), add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = family_model.model(torch.tensor([head + tail]), use_cache=False).logits[0, len(head) - 1 : -1]
        plain = logits[: len(tail)].double().log_softmax(-1)
        expected = sum(float(row[token]) for row, token in zip(plain, tail, strict=True))
        assert likelihood == pytest.approx(expected, abs=1e-3)
        assert greedy is (plain.argmax(-1).tolist() == tail)


def test_only_what_greedy_decoding_would_write_counts_as_greedy(llama):
    (wanted,) = llama.tokenizer("a", add_special_tokens=False)["input_ids"]
    ahead = 1000 * torch.nn.functional.one_hot(torch.tensor(wanted), llama.model.config.vocab_size)
    llama.model.lm_head.register_forward_hook(lambda _, inputs, output: output + ahead)
    scores = wrap(llama).loglikelihood(ask("loglikelihood", ["hi"] * 3, ["a", "b", "a rope"]))
    assert [greedy for _, greedy in scores] == [True, False, False]
    assert scores[0][0] == pytest.approx(0)


def test_steering_tells_prompt_from_reply_in_a_likelihood(llama, prompts):
    passes = []
    with changed_residuals(llama, {}, before=lambda now, _: passes.append(now)):
        wrap(llama, batch_size=5).loglikelihood(ask("loglikelihood", prompts[:4], CONTINUATIONS[:4]))
    prompt, reply = passes
    longest = max(map(len, encode_chats(llama.tokenizer, prompts[:4])))
    assert prompt.last == longest - 1 and not prompt.generated.any()
    assert reply.generated.all() and not reply.prompt.any()


def test_limits_and_stop_words_of_a_request_are_kept(llama):
    asked = []

    def answer(_, prompts, *, max_new_tokens, batch_size):
        asked.append((list(prompts), max_new_tokens))
        return type("Replies", (), {"texts": [f"{prompt} one. two" for prompt in prompts]})

    options = [{"until": ["."]}, {"until": [], "max_gen_toks": 9}, {"until": "two"}]
    replies = wrap(llama, engine=answer).generate_until(ask("generate_until", ["a", "b", "c"], options))
    assert replies == ["a one", "b one. two", "c one. "]
    assert sorted(asked) == [(["a", "c"], 6), (["b"], 9)]


def test_sampling_and_bare_texts_are_refused(llama):
    with pytest.raises(InputError, match="do_sample"):
        wrap(llama).generate_until(ask("generate_until", ["a"], [{"until": [], "do_sample": True}]))
    with pytest.raises(InputError, match="loglikelihood_rolling"):
        wrap(llama).loglikelihood_rolling(ask("loglikelihood_rolling", ["a"]))


def test_rows_reach_the_model_letter_for_letter(llama, monkeypatch):
    odd = ["NA", "{{ 7 * 7 }}", 'a "quoted",\nsecond line\r', "7", " led by a space", ""]
    answers = ["007", "null", "1.0", "[1]", "{{x}}", "NA"]
    monkeypatch.setattr(HarnessModel, "generate_until", lambda _, requests: [request.args[0] for request in requests])
    task = LocalTask("odd", pandas.DataFrame({"prompt": odd, "answer": answers}))
    for _ in range(2):
        logged = log_samples(wrap(llama), {"odd": task})["odd"]
        assert [sample["resps"] for sample in logged] == [[[prompt]] for prompt in odd]
        assert [sample["doc"]["answer"] for sample in logged] == answers


def test_local_tasks_need_no_network_leave_no_cache_and_show_nothing(llama, monkeypatch, capfd):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("datasets.load_dataset", refuse)
    monkeypatch.setattr("lm_eval.api.task.tqdm", functools.partial(tqdm, disable=False))
    task = LocalTask("local", pandas.DataFrame({"prompt": ["a", "b"], "answer": ["x", "y"]}))
    assert len(log_samples(wrap(llama), {"local": task})["local"]) == 2
    assert task.dataset["test"].cache_files == []
    assert capfd.readouterr() == ("", "")


def test_scores_that_do_not_fit_into_memory_are_computed_in_halves(llama, prompts, monkeypatch):
    requests = ask("loglikelihood", prompts[:4], CONTINUATIONS[:4])
    expected, score, sizes = wrap(llama, batch_size=4).loglikelihood(requests), HarnessModel._score, []

    def small_memory(self, heads, tails):
        sizes.append(len(heads))
        if len(heads) > 2:
            raise torch.OutOfMemoryError("too large")
        return score(self, heads, tails)

    monkeypatch.setattr(HarnessModel, "_score", small_memory)
    found = wrap(llama, batch_size=4).loglikelihood(requests)
    assert sizes[0] == 4 and set(sizes[1:]) <= {1, 2}
    assert [one for one, _ in found] == pytest.approx([one for one, _ in expected], abs=1e-4)


def test_standard_tasks_without_a_network_get_one_line(monkeypatch):
    def load(*_, **__):
        raise ConnectionError("Couldn't reach the hub\nmore")

    monkeypatch.setattr("lm_eval.api.task.datasets.load_dataset", load)
    with pytest.raises(
        InputError, match="standard tasks: cannot be fetched .Couldn't reach the hub.; check the network"
    ):
        load_standard_tasks()
