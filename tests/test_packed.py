"""Weights of 4 and 8 bits: edits beside them are exact, leave them alone, and end up in an adapter.

bitsandbytes also computes on a CPU, slowly; there a user's model is refused, and here that is switched off.
"""

import numpy
import pytest
import torch
from conftest import prompt_table, save_random_model
from peft import PeftModel
from test_align import any_change_is_right, two_classes  # noqa: F401
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

import llmva
from llmva.aligned_model.folder import require_checkpoint
from llmva.core import paths
from llmva.core.errors import InputError
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog, SublayerEdit
from llmva.models import packed
from llmva.models.chat_model import ChatModel, encode_texts, load_model

bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (the extra `packed`)")
KINDS = {
    "4 bits": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32},
    "8 bits": {"load_in_8bit": True},
}
NAMES = ("mlp.00", "attention.01")


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    # Processors with AVX512 pack the weight once more at the first pass, as no GPU does.
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)


@pytest.fixture
def on_gpu(monkeypatch):
    monkeypatch.setattr(packed, "has_gpu", lambda: True)


@pytest.fixture(params=KINDS)
def folder(request, tmp_path):
    """A random Llama, packed."""
    plain, target = save_random_model(tmp_path / "plain"), tmp_path / "packed"
    config = BitsAndBytesConfig(**KINDS[request.param])
    AutoModelForCausalLM.from_pretrained(plain, quantization_config=config, device_map="cpu").save_pretrained(target)
    AutoTokenizer.from_pretrained(plain).save_pretrained(target)
    return target


@pytest.fixture
def model(folder, on_gpu) -> ChatModel:
    return load_model(str(folder))


def log_of(chat_model, size=0.3):
    generator = numpy.random.default_rng(0)

    def edit(name):
        rows, columns = chat_model.writers[name].out_features, chat_model.writers[name].in_features
        output, reads = (generator.normal(size=n).astype(numpy.float32) * size for n in (rows, columns))
        return SublayerEdit(name, output, reads, 0.0, output, output, 1.0)

    return EditLog().appended(map(edit, NAMES)).appended(map(edit, NAMES[:1]))


@torch.no_grad()
def logits(model, tokenizer):
    tokens = torch.tensor(encode_texts(tokenizer, ["how do i cut a rope, and what is it for?"]))
    return model(tokens).logits[0].float()


def test_a_packed_weight_is_read_as_what_its_module_computes(model):
    for module in model.writers.values():
        assert packed.is_packed(module)
        features = torch.randn(9, module.in_features, generator=torch.Generator().manual_seed(0)) * 0.1
        computed, expected = module(features).float(), features @ packed.unpack(module).T
        assert torch.nn.functional.cosine_similarity(computed.flatten(), expected.flatten(), dim=0) > 0.999


def test_edits_beside_a_packed_weight_are_exact_and_can_be_taken_back(model):
    before = {name: weight.clone() for name, weight in model.model.named_parameters()}
    log, plain = log_of(model), logits(model.model, model.tokenizer)
    module = model.writers["mlp.00"]
    features = torch.randn(5, module.in_features)
    alone = module(features)
    with EditedModel(model.writers) as edited:
        edited.apply(log)
        expected = sum(
            torch.outer(features @ torch.from_numpy(edit.input_vector), torch.from_numpy(edit.output_vector))
            for edit in log.edits_of("mlp.00")
        )
        assert torch.allclose(module(features) - alone, expected, atol=1e-4)
        change = edited.weight("mlp.00") - packed.unpack(module)
        assert torch.allclose(features @ change.T, expected, atol=1e-4)
        assert not torch.allclose(logits(model.model, model.tokenizer), plain, atol=1e-3)
        # Another model of the same modules goes on from these edits.
        assert torch.equal(EditedModel(model.writers).weight("mlp.00"), edited.weight("mlp.00"))
    assert torch.equal(logits(model.model, model.tokenizer), plain)
    assert all(torch.equal(weight, before[name]) for name, weight in model.model.named_parameters())


def test_an_aligned_packed_model_is_its_adapter(folder, on_gpu, tmp_path, monkeypatch, any_change_is_right):  # noqa: F811
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompts = prompt_table(40)[["prompt", "label"]]
    result = llmva.align(model, tokenizer, prompts, iterations=2, max_new_tokens=4)
    assert result.log.sublayers
    with result.applied() as edited:
        expected = logits(edited, tokenizer)
    assert not torch.allclose(logits(model, tokenizer), expected, atol=1e-3)
    out = result.save(tmp_path / "aligned")
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), out / "adapter")
    assert torch.allclose(logits(adapted, tokenizer), expected, atol=0.02)
    for wrong in (result.merge, lambda: result.save(tmp_path / "whole", checkpoint=True)):
        with pytest.raises(InputError, match="weights of 4 or 8 bits cannot be changed; leave it out"):
            wrong()
    with pytest.raises(InputError, match="CHECKPOINT: weights of 4 or 8 bits"):
        require_checkpoint(str(folder), "1")


def test_without_a_gpu_or_the_package_it_is_one_line(folder, monkeypatch):
    with pytest.raises(InputError, match="quantization_config: weights of 4 or 8 bits need a GPU; name the model they"):
        load_model(str(folder))
    monkeypatch.setattr(packed, "has_gpu", lambda: True)
    monkeypatch.setattr(packed.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="bitsandbytes is not installed; `pip install bitsandbytes`, or name"):
        packed.require_readable(AutoConfig.from_pretrained(folder), "model")


def test_edits_of_the_released_codes_rounding_need_a_weight_to_round(model):
    with pytest.raises(InputError, match="is packed, and edits beside it are not rounded"):
        EditedModel(model.writers, rounding="bfloat16")
