"""A model that does not fit: what accelerate keeps on the CPU is captured, edited and restored where it lives."""

import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from conftest import SHAPE, save_random_model
from test_export import log_of

from llmva.core.errors import InputError
from llmva.edits.edited_model import EditedModel
from llmva.engines.greedy import respond
from llmva.judging.guard import weights_digest
from llmva.models.activations import Capture
from llmva.models.chat_model import ChatModel, load_model
from llmva.models.in_memory import hold
from llmva.models.offloading import all_stored_parameters, stored_parameters
from llmva.steering.residual import add_where, changed_residuals

ASKED = {"max_new_tokens": 6, "batch_size": 3}


def offloaded(folder, how):
    """Load a model with all of it, or all but the first block, kept aside; the CPU plays the GPU."""
    loaded = load_model(str(folder))
    if how == "all":
        model = cpu_offload(loaded.model, execution_device=torch.device("cpu"))
    else:
        places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"}
        places |= {"model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
        aside = str(folder / "offloaded")
        model = dispatch_model(loaded.model, places, main_device="cpu", offload_dir=aside, force_hooks=True)
    return ChatModel(loaded.source, model, loaded.tokenizer)


@pytest.fixture(params=["llama", "gemma2", "phi3"])
def pair(request, tmp_path):
    folder = save_random_model(tmp_path / "model", request.param)
    return load_model(str(folder)), offloaded(folder, "all")


def test_replies_and_activations_are_those_of_the_whole_model(pair, prompts):
    whole, parted = pair
    assert next(parted.model.parameters()).is_meta and parted.device == torch.device("cpu")
    capture = Capture(inputs=True, blocks=True)
    expected, found = (respond(model, prompts, capture=capture, **ASKED) for model in pair)
    assert found.texts == expected.texts
    for site in ("outputs", "inputs", "blocks"):
        for name, values in getattr(expected.activations, site).items():
            assert (getattr(found.activations, site)[name] == values).all(), (site, name)


def test_edits_are_made_where_the_weights_live_and_taken_back_to_the_bit(pair, prompts):
    whole, parted = pair
    log = log_of(whole)
    before = {name: tensor.clone() for name, tensor in all_stored_parameters(parted.model)}
    replies = respond(parted, prompts, **ASKED).texts
    with EditedModel(whole.writers) as expected, EditedModel(parted.writers) as edited:
        expected.apply(log)
        edited.apply(log)
        for name, module in parted.writers.items():
            assert module.weight.is_meta
            assert torch.equal(stored_parameters(module)["weight"], whole.writers[name].weight)
        assert respond(parted, prompts, **ASKED).texts == respond(whole, prompts, **ASKED).texts != replies
    after = dict(all_stored_parameters(parted.model))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_guard_keeps_its_name_wherever_its_weights_are(pair):
    whole, parted = pair
    assert weights_digest(whole) == weights_digest(parted)


@pytest.mark.parametrize("how", ["all", "disk"])
def test_a_users_model_has_its_key_wherever_its_weights_are(tmp_path, how):
    folder = save_random_model(tmp_path / "model")
    whole, parted = load_model(str(folder)), offloaded(folder, how)
    keys = [hold(model.model, model.tokenizer, editable=False).key for model in (whole, parted)]
    assert keys[0] == keys[1]


def test_steering_hooks_work_on_it(pair, prompts):
    step = torch.randn(SHAPE["hidden_size"], generator=torch.manual_seed(0)) * 3
    answers = []
    for model in pair:
        with changed_residuals(model, {1: lambda hidden, now: add_where(hidden, now.prompt | now.generated, step)}):
            answers.append(respond(model, prompts, **ASKED).texts)
    assert answers[0] == answers[1] != respond(pair[0], prompts, **ASKED).texts


def test_what_is_on_disk_cannot_be_edited(tmp_path):
    parted = offloaded(save_random_model(tmp_path / "model"), "disk")
    with pytest.raises(InputError, match=r"attention\.01: its weight is not in memory; give the model more"):
        EditedModel(parted.writers)
