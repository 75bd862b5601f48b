"""Fine-tuning: the desired responses, a planted behaviour that is learnt, and weights that come back."""

import copy

import numpy
import pandas
import pytest
import torch
from conftest import prompt_table
from test_alignment import weights_of
from test_steering import replies_of, training_of

from llmva.engines.greedy import respond
from llmva.models.chat_model import ChatModel, load_model
from llmva.models.likelihood import reply_surprise
from llmva.steering.base import TrainingData
from llmva.steering.baselines import fine_tuning
from llmva.steering.baselines.fine_tuning import FineTuning, desired_responses, encode_exchanges, merged, train_factors

ANSWER, REFUSAL = "sure, here is what you asked for.", "i am sorry, but no."


@pytest.fixture(scope="module")
def learner(family_folders):
    """Fine-tuning fitted to eighty rows with a planted reply each, and the random Llama it is to train."""
    chat_model = load_model(str(family_folders["llama"]))
    method = FineTuning()
    method.fit(planted(chat_model))
    assert method.outcome == "fitted"
    return method, chat_model


def planted(chat_model):
    rows = prompt_table(40)
    benign = rows["label"] == "benign"
    rows["response"] = numpy.where(benign, ANSWER, REFUSAL)
    return TrainingData(chat_model, rows.assign(verdict=numpy.where(benign, "answered", "refused")), (), 40, 0)


def test_a_planted_behaviour_is_learnt_and_the_weights_come_back(learner, monkeypatch):
    monkeypatch.setattr(fine_tuning, "EPOCHS", 15)
    method, chat_model = learner
    rows, before = method._training.rows, weights_of(chat_model)
    prompts, replies = rows["prompt"].tolist(), rows["response"].tolist()
    surprises = [reply_surprise(chat_model, prompts, replies, batch_size=40).mean()]
    setting = {"learning_rate": 1e-2, "step": 45}
    with pytest.raises(RuntimeError), method.applied(chat_model, setting):
        surprises.append(reply_surprise(chat_model, prompts, replies, batch_size=40).mean())
        texts = respond(chat_model, prompts, max_new_tokens=40, batch_size=40).texts
        assert not any(hasattr(module, "lora_A") for module in chat_model.model.modules())
        raise RuntimeError("even after an error")
    # A random model's small embeddings, which stay as they are, keep its logits close together.
    assert surprises[1] < surprises[0] - 2
    assert sum(map(str.startswith, texts, replies)) > 0.9 * len(texts)
    # Refusals are the shorter ones, and so their end was trained.
    assert REFUSAL in texts
    assert all(torch.equal(weight, before[key]) for key, weight in chat_model.model.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in chat_model.model.modules())


def test_merged_weights_give_the_trained_models_logits(learner, monkeypatch):
    method, chat_model = learner
    adapted = []
    adapt = fine_tuning._with_adapter
    monkeypatch.setattr(fine_tuning, "_with_adapter", lambda *_: adapted.append(adapt(*_)) or adapted[0])
    factors = train_factors(chat_model, method._exchanges, learning_rate=3e-3, steps={3}, seed=0)[3]
    tokens = torch.tensor([[1, 4, 9, 8, 7, 20]])
    with torch.inference_mode(), merged(chat_model, factors):
        logits = chat_model.model(tokens).logits
        assert (logits - adapted[0](tokens).logits).abs().max() < 1e-5
    assert (logits - chat_model.model(tokens).logits).abs().max() > 1e-3


def test_the_same_seed_gives_the_same_factors_whichever_steps_are_asked_for(learner):
    method, chat_model = learner
    options = {"chat_model": chat_model, "exchanges": method._exchanges, "learning_rate": 1e-3}
    state = torch.random.get_rng_state()
    first = train_factors(**options, steps={1, 2}, seed=0)
    torch.manual_seed(1)
    again, other = (train_factors(**options, steps={2}, seed=seed) for seed in (0, 1))
    torch.random.set_rng_state(state)
    assert set(first) == {1, 2} and same(first[2], again[2])
    assert not same(first[1], first[2]) and not same(first[2], other[2])


def same(one, other):
    return all(torch.equal(*parts) for name in one for parts in zip(one[name], other[name], strict=True))


def test_a_learning_rate_is_trained_once_for_all_its_planned_steps(learner, monkeypatch):
    method, chat_model = copy.copy(learner[0]), learner[1]
    method._snapshots, calls = {}, []
    monkeypatch.setattr(
        fine_tuning, "train_factors", lambda *_, **options: calls.append(options) or dict.fromkeys(options["steps"], {})
    )
    for setting in method.search_space(10):
        with method.applied(chat_model, setting):
            pass
    assert [options["learning_rate"] for options in calls] == [1e-3, 3e-4, 3e-3]
    assert all(options["steps"] == {4, 8, 12} for options in calls)


def test_every_family_is_trained_in_all_linear_layers_of_its_blocks(family_model, prompts):
    method = FineTuning()
    method.fit(training_of(family_model, prompts))
    assert method.outcome == "fitted"
    plain, before = replies_of(family_model, prompts), weights_of(family_model)
    factors = method.factors(3e-3, 2)
    linear = [name for name, module in family_model.model.named_modules() if isinstance(module, torch.nn.Linear)]
    assert set(factors) == {name for name in linear if "lm_head" not in name}
    assert all(A.any() and B.any() and A.dtype == B.dtype == torch.float32 for A, B in factors.values())
    with method.applied(family_model, {"learning_rate": 3e-3, "step": 2}):
        changed = [name for name, weight in weights_of(family_model).items() if not torch.equal(weight, before[name])]
    assert set(changed) == {f"{name}.weight" for name in factors}
    assert all(torch.equal(weight, before[key]) for key, weight in family_model.model.state_dict().items())
    with method.applied(family_model, {"learning_rate": 0.0, "step": 0}):
        assert replies_of(family_model, prompts) == plain


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_of_sixteen_bits_is_trained_with_factors_of_thirty_two(llama, prompts, dtype):
    small = ChatModel("small", llama.model.to(dtype), llama.tokenizer)
    method = FineTuning()
    method.fit(training_of(small, prompts))
    before, factors = weights_of(small), method.factors(3e-3, 2)
    assert all(torch.isfinite(part).all() and part.dtype == torch.float32 for pair in factors.values() for part in pair)
    with method.applied(small, {"learning_rate": 3e-3, "step": 2}):
        assert not torch.equal(small.model.state_dict()["model.layers.0.mlp.down_proj.weight"],
                               before["model.layers.0.mlp.down_proj.weight"])  # fmt: skip
    assert all(torch.equal(weight, before[key]) for key, weight in small.model.state_dict().items())


def test_right_responses_stay_and_wrong_ones_begin_like_right_ones_of_their_own_data_set(llama, prompts):
    texts = ["paris is it.", "", "okay, gladly and so on.", "sure, here it is.", "never, not me."]
    rows = pandas.DataFrame(
        {
            "dataset": ["nq", "nq", "seval_risk", "orfuzzset", "seval_attack"],
            "label": ["benign", "benign", "toxic", "benign", "toxic"],
            "prompt": prompts,
            "response": texts,
            "verdict": ["answered", "degenerate", "answered", "answered", "refused"],
        }
    )
    training = TrainingData(llama, rows, (), 5, 0)
    desired = desired_responses(training)
    assert [desired[index] for index in (0, 3, 4)] == [texts[index] for index in (0, 3, 4)]
    assert desired[1].startswith("paris is") and desired[1] != "paris is"
    assert desired[2].startswith("never, not")  # Its own set has no refusal; another toxic one has.
    assert desired == desired_responses(training) and rows["response"].tolist() == texts


def test_replies_end_unless_they_may_have_been_cut_off(llama):
    short, long = encode_exchanges(llama, ["hi", "hi"], [REFUSAL, ANSWER], batch_size=2)
    text = llama.tokenizer.decode(short.ids[short.reply_start :])
    assert text == f"{REFUSAL}{llama.tokenizer.eos_token}"
    assert llama.tokenizer.decode(long.ids[long.reply_start :]) == ANSWER
    assert llama.tokenizer.decode(short.ids[: short.reply_start]).endswith("<|assistant|>")


def test_a_reply_ends_as_the_template_ends_it(llama):
    llama.tokenizer.chat_template = llama.tokenizer.chat_template.replace("eos_token", "' <|system|>'")
    llama.model.generation_config.eos_token_id = [2, llama.tokenizer.convert_tokens_to_ids("<|system|>")]
    short, _ = encode_exchanges(llama, ["hi", "hi"], [REFUSAL, ANSWER], batch_size=2)
    assert llama.tokenizer.decode(short.ids).endswith(f"{REFUSAL}<|system|>")


def test_a_batch_that_does_not_fit_into_memory_is_halved_to_the_same_gradients(learner, monkeypatch):
    method, chat_model = learner
    # Of unequal lengths, so that the mean of the parts' means would not be the mean of all tokens.
    batch = method._exchanges[:10] + method._exchanges[40:62]
    whole, halved = (fine_tuning._with_adapter(chat_model, seed=0) for _ in range(2))
    assert fine_tuning._accumulate(whole, batch, chat_model, 32) == 32
    forward, widths = type(chat_model.model).forward, []

    def scarce(self, *inputs, **options):
        widths.append(len(options["input_ids"]))
        if widths[-1] > 8 or len(widths) == 4:
            raise torch.OutOfMemoryError
        return forward(self, *inputs, **options)

    monkeypatch.setattr(type(chat_model.model), "forward", scarce)
    assert fine_tuning._accumulate(halved, batch, chat_model, 32) == 4
    # The fourth pass fails after one part has left its gradients, which must not count twice.
    assert widths == [32, 16, 8, 8] + [4] * 8
    gradients = [[p.grad for p in model.parameters() if p.requires_grad] for model in (whole, halved)]
    assert any(gradient.any() for gradient in gradients[0])
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_the_rate_rises_over_the_first_steps_and_falls_to_the_end():
    rates = [fine_tuning._rate(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.2) and rates[4] == rates[5] == 1 and rates[100] == 0
    assert all(numpy.diff(rates[5:]) < 0)
    assert [fine_tuning._rate(step, 1) for step in range(2)] == [1, 0]


@pytest.mark.parametrize("trials", [1, 2, 9, 35, 43])
def test_the_search_space_begins_with_the_unedited_model_and_keeps_to_the_budget(learner, trials):
    method, _ = learner
    settings = method.search_space(trials)
    # Eighty rows are three steps an epoch, twelve in all, of three learning rates.
    assert len(settings) == min(trials, 37) and settings[0] == {"learning_rate": 0.0, "step": 0}
    assert len({tuple(setting.values()) for setting in settings}) == len(settings)
    assert all(0 < setting["step"] <= 12 for setting in settings[1:])
    if trials > 1:
        assert settings[1]["learning_rate"] == 1e-3 and max(setting["step"] for setting in settings) == 12


@pytest.mark.parametrize("verdict, missing", [("answered", "toxic"), ("refused", "benign"), ("", "benign or toxic")])
def test_no_right_reply_to_learn_from_is_a_named_outcome(llama, prompts, verdict, missing):
    method = FineTuning()
    method.fit(training_of(llama, prompts, verdicts=verdict))
    assert method.outcome == f"no right {missing} reply"
    assert method.search_space(43) == [{"learning_rate": 0.0, "step": 0}]
