"""Blocks with linear attention, as Qwen3.6 has them beside full attention: answered, read and steered all the same."""

import numpy
import pytest
import torch
from conftest import TEXTS
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

from llmva.engines import greedy, hugging_face
from llmva.measures.coherence import CoherenceCheck
from llmva.models.activations import FINAL, Capture
from llmva.models.chat_model import load_model
from llmva.models.reading import read_activations
from llmva.organisms.tokenizer import train_tokenizer
from llmva.steering.runtime.boundary import Boundary
from llmva.steering.runtime.steering import RuntimeSteering

WIDTH = 48
ASKED = {"max_new_tokens": 5, "batch_size": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model of four blocks, the last one with full attention."""
    folder = tmp_path_factory.mktemp("linear")
    tokenizer = train_tokenizer(TEXTS * 3, 400)
    config = Qwen3_5TextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8,
        linear_value_head_dim=8, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        layer_types=["linear_attention"] * 3 + ["full_attention"],
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen3_5ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def hybrid(folder):
    """The same model, freshly loaded as a study of run-time steering loads it."""
    return load_model(folder, editable=False)


def steering_of(layer, method="StTP", position="all"):
    vector = numpy.random.default_rng(0).standard_normal(WIDTH)
    unit = (vector / numpy.linalg.norm(vector)).astype(numpy.float32)
    statistics = {"positive_mean": 1.5, "positive_deviation": 0.2, "negative_mean": -0.5, "negative_deviation": 0.3}
    return RuntimeSteering(Boundary(unit, 0.1, **statistics), method, 4.0, layer, position)


def test_every_block_is_seen_and_the_engine_gives_what_generate_does(hybrid, prompts):
    assert len(hybrid.blocks) == 4
    assert greedy.respond(hybrid, prompts, **ASKED).texts == hugging_face.respond(hybrid, prompts, **ASKED).texts


@pytest.mark.parametrize("layer", [1, 2, 4])
def test_a_layer_is_steered_and_those_below_it_are_not(hybrid, prompts, layer):
    options = {"capture": Capture(outputs=False, blocks=True), "batch_size": 5}
    before = read_activations(hybrid, prompts, **options)
    with steering_of(layer).applied(hybrid):
        after = read_activations(hybrid, prompts, **options)
    streams = [{**read.blocks, 4: read.outputs[FINAL]} for read in (before, after)]
    for earlier in range(layer):
        assert (streams[0][earlier] == streams[1][earlier]).all()
    assert (streams[0][layer] != streams[1][layer]).any()


@pytest.mark.parametrize("position", ["all", "response"])
def test_a_steered_reply_does_not_depend_on_its_neighbours(hybrid, prompts, position):
    with steering_of(2, position=position).applied(hybrid):
        together = greedy.respond(hybrid, prompts, max_new_tokens=5, batch_size=5).texts
        alone = [greedy.respond(hybrid, [prompt], max_new_tokens=5, batch_size=1).texts[0] for prompt in prompts]
    assert together == alone


def test_coherence_reads_it(hybrid, prompts):
    losses = CoherenceCheck(hybrid, 3).losses([[{"role": "user", "content": text}] for text in prompts], prompts)
    assert numpy.isfinite(losses).all() and (losses > 0).all()


def test_chosen_layers_are_recorded_alone(hybrid, prompts):
    options = {"outputs": False, "blocks": True, "positions": "all"}
    whole = read_activations(hybrid, prompts, capture=Capture(**options), batch_size=5)
    some = read_activations(hybrid, prompts, capture=Capture(**options, layers=(1, 3)), batch_size=5)
    assert set(some.blocks) == {1, 3} and all((some.blocks[layer] == whole.blocks[layer]).all() for layer in (1, 3))
    assert (some.outputs[FINAL] == whole.outputs[FINAL]).all()
