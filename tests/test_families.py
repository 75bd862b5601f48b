"""Every family's traps, on random weights at the real widths with two blocks: what a tiny organism would not show."""

import shutil

import numpy
import pytest
import torch
import transformers
from conftest import TEXTS, save_random_model
from transformers import AutoTokenizer
from transformers.initialization import no_init_weights

from llmva.core.errors import InputError
from llmva.core.params import load_shapes
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog
from llmva.engines.greedy import respond
from llmva.method.edit import solve_edit
from llmva.models.activations import Capture
from llmva.models.chat_model import ChatModel, load_model
from llmva.models.reading import read_activations
from llmva.organisms.tokenizer import train_tokenizer

# By parameter file: the class, and what its configuration has beside the widths (as published).
MODELS = {
    "llama-3.1-8b": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
            }
        },
    ),
    "gemma-2-9b": (
        "Gemma2",
        {
            "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 256,
            "sliding_window": 4096, "attn_implementation": "eager",
        },
    ),
    "mistral-7b-v0.3": ("Mistral", {"sliding_window": None}),
    "phi-3.5-mini": ("Phi3", {"pad_token_id": 0}),
    "phi-4-mini": ("Phi3", {"pad_token_id": 0, "partial_rotary_factor": 0.75}),
    "qwen2.5-7b": ("Qwen2", {}),
    "qwen3-8b": ("Qwen3", {}),
}  # fmt: skip
ASKED = ["hi", "how do i cut a rope?", "please repeat the words cut the rope, and then tell me what a rope is for"]


@pytest.fixture(scope="module", params=list(MODELS))
def model(request):
    return build(request.param)


def build(slug):
    """Build a model of the published widths, two blocks and a few hundred words, with random float32 weights."""
    family, more = MODELS[slug]
    shape = load_shapes(slug)["shape"]
    tokenizer = train_tokenizer(TEXTS * 3, 400)
    config = getattr(transformers, f"{family}Config")(
        hidden_size=shape["width"],
        intermediate_size=shape["inner_width"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["key_value_heads"],
        head_dim=shape["head_width"],
        tie_word_embeddings=shape["tied"],
        num_hidden_layers=2,
        vocab_size=len(tokenizer),
        eos_token_id=2,
        **more,
    )
    with no_init_weights():
        built = getattr(transformers, f"{family}ForCausalLM")(config)
    built.tie_weights()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in built.named_parameters():
            if weight.ndim > 1:
                weight.uniform_(-0.035, 0.035, generator=generator)
            elif name.endswith("bias"):
                weight.uniform_(-0.5, 0.5, generator=generator)
            else:
                # Gemma's norms count from 1.
                weight.fill_(0.2 if family == "Gemma2" else 1.2)
    return slug, shape, ChatModel(slug, built.eval(), tokenizer)


def test_writers_have_the_published_widths(model):
    slug, shape, chat_model = model
    assert list(chat_model.writers) == ["attention.00", "attention.01", "mlp.00", "mlp.01"]
    inner = {"attention": shape["heads"] * shape["head_width"], "mlp": shape["inner_width"]}
    for sublayer in chat_model.sublayers:
        assert tuple(sublayer.module.weight.shape) == (shape["width"], inner[sublayer.kind])


def test_captured_outputs_are_the_modules_own_whatever_stands_beside_them_in_the_batch(model):
    _, shape, chat_model = model
    capture = Capture(inputs=True)
    together = respond(chat_model, ASKED, max_new_tokens=2, batch_size=3, capture=capture)
    alone = [respond(chat_model, [prompt], max_new_tokens=2, batch_size=1, capture=capture) for prompt in ASKED]
    assert together.texts == [each.texts[0] for each in alone]
    again = read_activations(chat_model, ASKED, capture=capture, batch_size=3)
    for sublayer in chat_model.sublayers:
        outputs, inputs = (
            values[sublayer.name] for values in (together.activations.outputs, together.activations.inputs)
        )
        numpy.testing.assert_array_equal(outputs, again.outputs[sublayer.name])
        single = numpy.concatenate([each.activations.outputs[sublayer.name] for each in alone])
        numpy.testing.assert_allclose(outputs, single, atol=2e-4 * abs(single).max())
        # With the bias, if there is one: what the module itself gives, before any norm that follows it.
        with torch.inference_mode():
            own = sublayer.module(torch.from_numpy(inputs)).numpy()
        numpy.testing.assert_allclose(outputs, own, atol=2e-4 * abs(own).max())


def test_an_edit_ties_the_projections_at_this_width_and_goes_without_a_trace(model):
    _, shape, chat_model = model
    modules = {name: chat_model.writers[name] for name in ("attention.00", "mlp.01")}
    before = {name: module.weight.detach().clone() for name, module in modules.items()}
    embeddings = chat_model.model.get_input_embeddings().weight.detach().clone()
    generator = numpy.random.default_rng(1)
    vectors = {name: generator.standard_normal((2, shape["width"])) for name in before}
    vectors = {name: pair / numpy.linalg.norm(pair, axis=1, keepdims=True) for name, pair in vectors.items()}
    with EditedModel(modules) as edited:
        log = EditLog().appended(
            solve_edit(edited.weight(name), None, sublayer=name, answer=answer, benign=benign, scale=1.5)
            for name, (answer, benign) in vectors.items()
        )
        edited.apply(log)
        capture = Capture(inputs=True)
        seen = respond(chat_model, ASKED, max_new_tokens=2, batch_size=3, capture=capture).activations
        for name, (answer, benign) in vectors.items():
            untouched = seen.inputs[name] @ before[name].numpy().T
            # Eq. 7, for the inputs that the edited model has.
            expected = 1.5 * untouched @ benign
            numpy.testing.assert_allclose(seen.outputs[name] @ answer, expected, atol=1e-3 * abs(untouched).max())
    assert all(torch.equal(module.weight, before[name]) for name, module in modules.items())
    assert torch.equal(chat_model.model.get_input_embeddings().weight, embeddings)


def test_the_traps_are_there(model):
    slug, shape, chat_model = model
    attention = chat_model.blocks[0].self_attn
    family, config = MODELS[slug][0], chat_model.model.config
    keys = shape["key_value_heads"] * shape["head_width"]
    if family == "Phi3":
        assert attention.qkv_proj.out_features == shape["heads"] * shape["head_width"] + 2 * keys
        assert chat_model.blocks[0].mlp.gate_up_proj.out_features == 2 * shape["inner_width"]
        turned = 2 * len(chat_model.model.model.rotary_emb.inv_freq)
        assert turned == {"phi-3.5-mini": 96, "phi-4-mini": 96}[slug] and shape["head_width"] in (96, 128)
    else:
        assert attention.k_proj.out_features == keys
        assert (attention.q_proj.bias is not None) == (family == "Qwen2") and attention.o_proj.bias is None
    assert hasattr(attention, "q_norm") == (family == "Qwen3")
    tied = chat_model.model.lm_head.weight is chat_model.model.get_input_embeddings().weight
    assert tied == shape["tied"]
    normed = [sublayer.contribution is not sublayer.module for sublayer in chat_model.sublayers]
    assert normed == [family == "Gemma2"] * 4
    if family == "Llama":
        assert chat_model.model.model.rotary_emb.rope_type == "llama3"
    if family == "Gemma2":
        assert config._attn_implementation == "eager" and config.layer_types == ["sliding_attention", "full_attention"]
        with torch.inference_mode():
            assert chat_model.model(torch.arange(5, 25)[None]).logits.abs().max() <= 30


def test_soft_capping_is_computed_and_not_left_out(tmp_path):
    # Fused kernels skip it; with queries this long it shows.
    folder = save_random_model(tmp_path / "capped", "gemma2", attn_logit_softcapping=0.5)
    capped = load_model(str(folder)).model
    assert capped.config._attn_implementation == "eager"
    tokens = torch.arange(5, 25)[None]
    with torch.inference_mode():
        before = capped(tokens).logits
        for block in capped.model.layers:
            block.self_attn.attn_logit_softcapping = None
        assert (capped(tokens).logits - before).abs().max() > 1e-3


# What is refused, and how


def refused(folder, tmp_path):
    AutoTokenizer.from_pretrained(save_random_model(tmp_path / "words")).save_pretrained(folder)
    with pytest.raises(InputError) as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 400,
}
EXPERTS = {"num_key_value_heads": 2, "moe_intermediate_size": 8, "head_dim": 8, "num_experts_per_tok": 1}


@pytest.mark.parametrize(
    "family, more, named",
    [
        ("Mixtral", {"num_local_experts": 2, "num_key_value_heads": 2}, "layer 0 has no linear down_proj to edit, but"),
        ("Qwen3Moe", {"num_experts": 2, **EXPERTS}, "layer 0 has no linear down_proj to edit, but"),
        # Dense at first, experts later: an edit of what is there would be half an edit.
        ("Qwen3Moe", {"num_experts": 2, "mlp_only_layers": [0], **EXPERTS}, "layer 1 has no linear down_proj"),
    ],
    ids=["mixtral", "qwen3 moe", "experts from the second block on"],
)
def test_experts_are_refused_by_their_name(tmp_path, family, more, named):
    config = getattr(transformers, f"{family}Config")(**SMALL, **more, eos_token_id=2, bos_token_id=1)
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(tmp_path / "model")
    line = refused(tmp_path / "model", tmp_path)
    assert named in line and "experts" in line and line.endswith("use a dense, unquantised decoder")


def test_other_architectures_are_refused_by_the_module_that_was_found(tmp_path):
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=400, bos_token_id=1, eos_token_id=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    line = refused(tmp_path / "model", tmp_path)
    assert "layer 0 has no linear o_proj to edit, but transformer.h.0.attn.c_proj (Conv1D)" in line


def test_quantised_weights_are_refused_before_they_are_loaded(tmp_path):
    folder = shutil.copytree(save_random_model(tmp_path / "plain"), tmp_path / "model")
    config = transformers.AutoConfig.from_pretrained(folder)
    config.quantization_config = {"quant_method": "gptq", "bits": 4}
    config.save_pretrained(folder)
    assert "quantization_config: the weights are quantised (gptq)" in refused(folder, tmp_path)


def test_a_judge_need_not_be_dense(tmp_path):
    config = transformers.MixtralConfig(**SMALL, num_local_experts=2, num_key_value_heads=2, eos_token_id=2)
    transformers.MixtralForCausalLM(config).save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(save_random_model(tmp_path / "words")).save_pretrained(tmp_path / "model")
    assert load_model(str(tmp_path / "model"), editable=False).model
