"""Thinking with a budget: a real model that follows a script thinks, is closed, is read and answers behind it."""

from dataclasses import replace

import numpy
import pandas
import pytest
import torch
from lm_eval.api.instance import Instance
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from llmva.core.text_cache import TextCache
from llmva.engines import greedy
from llmva.engines.memory import ReplyMemory
from llmva.engines.think_first import ThinkFirst
from llmva.judging.examiner import Examiner
from llmva.judging.judges import PhraseJudge
from llmva.judging.thinking import read_answers
from llmva.measures.harness import HarnessModel
from llmva.models.activations import Capture
from llmva.models.chat_model import ChatModel
from llmva.models.reading import read_activations
from llmva.models.templates import told_to_think

WORDS = [
    "hello",
    "why",
    "because",
    "of",
    "rain",
    "so",
    "yes",
    "plainly",
    "<|user|>",
    "<|reply|>",
    "<|end|>",
    "<think>",
    "</think>",
]
# As Qwen3 does it: who is told not to think has an empty span behind the prompt.
TEMPLATE = (
    "<|user|> {{ messages[0]['content'] }} <|reply|>"
    "{% if enable_thinking is defined and not enable_thinking %} <think> </think>{% endif %}"
)
SCRIPT = {"<|reply|>": "<think>", "<think>": "because", "because": "of", "of": "rain", "rain": "so", "so": "</think>",
          "</think>": "yes", "yes": "plainly", "plainly": "<|end|>"}  # fmt: skip


def scripted(script=SCRIPT, template=TEMPLATE):
    """Return a Qwen3 whose next token depends on the last one alone: what the script says.

    Its sublayers add a little to what is read, and never enough to change the next token.
    """
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate([*WORDS, "?"])}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?", eos_token="<|end|>", pad_token="<|end|>")
    tokenizer.padding_side, tokenizer.chat_template = "left", template
    config = Qwen3Config(
        vocab_size=len(WORDS) + 1, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=32, eos_token_id=WORDS.index("<|end|>"), tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        embeddings = torch.linalg.qr(torch.randn(64, 64)).Q[: len(WORDS) + 1] * 8
        model.get_input_embeddings().weight.copy_(embeddings)
        model.lm_head.weight.zero_()
        for before, after in script.items():
            model.lm_head.weight[WORDS.index(after)] += embeddings[WORDS.index(before)]
    return ChatModel("scripted", model, tokenizer)


def told(chat_model):
    return replace(chat_model, tokenizer=told_to_think(chat_model.tokenizer))


OPTIONS = {"max_new_tokens": 8, "batch_size": 2}


@pytest.mark.parametrize("engine", [greedy.respond, ReplyMemory().respond])
def test_it_thinks_then_answers(engine):
    model = scripted()
    # Without a budget the template tells the model not to think.
    assert engine(model, ["hello"], **OPTIONS).texts == ["yes plainly"]
    (reply,) = ThinkFirst(engine, 20).respond(told(model), ["hello"], **OPTIONS).texts
    assert reply == "<think> because of rain so\n</think>\n\nyes plainly"
    assert read_answers([reply]) == ["yes plainly"]
    assert model.model.generation_config.eos_token_id == WORDS.index("<|end|>")
    assert model.tokenizer.chat_template == TEMPLATE


def test_thinking_that_is_still_open_at_the_end_of_the_budget_is_closed():
    (reply,) = ThinkFirst(greedy.respond, 3).respond(told(scripted()), ["why rain"], **OPTIONS).texts
    assert reply == "<think> because of\n</think>\n\nyes plainly"


def test_activations_are_those_behind_the_thinking():
    model, capture, asked = scripted(), Capture(inputs=True), ["hello", "why so"]
    engine = ThinkFirst(greedy.respond, 20)
    captured = engine.respond(told(model), asked, capture=capture, **OPTIONS).activations
    read = engine.read(told(model), asked, capture=capture, batch_size=2)
    # What was read is the whole text up to the end of the thinking.
    plain = scripted(template="{{ messages[0]['content'] }}")
    texts = [f"<|user|> {prompt} <|reply|> <think> because of rain so </think>" for prompt in asked]
    expected = read_activations(plain, texts, capture=capture, batch_size=2)
    before = greedy.respond(model, asked, capture=capture, **OPTIONS).activations
    for name, rows in expected.outputs.items():
        for found in (captured, read):
            assert found.outputs[name] == pytest.approx(rows, rel=1e-3, abs=1e-6)
        assert numpy.abs(before.outputs[name] - rows).max() > 0.01 * numpy.abs(rows).max()
    for name, rows in expected.inputs.items():
        for found in (captured, read):
            assert found.inputs[name] == pytest.approx(rows, rel=1e-3, abs=1e-6)


def test_an_examiner_reads_where_it_examines():
    engine = ThinkFirst(greedy.respond, 20)
    places = {"engine": engine.respond, "reader": engine.read}
    examiner = Examiner(told(scripted()), PhraseJudge(), TextCache(None), None, **OPTIONS, **places)
    prompts = pandas.DataFrame({"id": ["a", "b"], "label": "benign", "prompt": ["hello", "why so"]})
    examined = examiner.examine(prompts, Capture())
    read = examiner.read(prompts["prompt"].tolist(), Capture())
    for name, rows in examined.activations.outputs.items():
        assert read.outputs[name] == pytest.approx(rows, rel=1e-3, abs=1e-6)
    assert examined.rows["verdict"].tolist() == ["answered"] * 2


def test_a_template_that_opens_the_thinking_is_closed_too():
    model = scripted(template="<|user|> {{ messages[0]['content'] }} <|reply|> <think>")
    (reply,) = ThinkFirst(greedy.respond, 2).respond(told(model), ["hello"], **OPTIONS).texts
    assert reply == "because of\n</think>\n\nyes plainly"


def test_a_model_that_does_not_think_is_asked_as_ever():
    model, memory = told(scripted({**SCRIPT, "<|reply|>": "yes"})), ReplyMemory()
    assert ThinkFirst(memory.respond, 20).respond(model, ["hello"], **OPTIONS).texts == ["yes plainly"]
    # Its reply is remembered, since nothing was put before it.
    asked = memory.answered
    ThinkFirst(memory.respond, 20).respond(model, ["hello"], **OPTIONS)
    assert memory.answered == asked


def test_with_openings_nobody_thinks():
    engine = ThinkFirst(greedy.respond, 20)
    (reply,) = engine.respond(told(scripted()), ["hello"], openings=["so </think>"], **OPTIONS).texts
    assert reply.endswith("yes plainly") and "because" not in reply


def test_tasks_are_read_behind_the_thinking():
    engine = ThinkFirst(greedy.respond, 20)
    model = HarnessModel(told(scripted()), batch_size=2, max_new_tokens=8, engine=engine.respond)
    asked = [Instance("generate_until", {}, ("hello", {"until": []}), 0)]
    assert model.generate_until(asked) == ["yes plainly"]
