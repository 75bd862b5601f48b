"""Checkpoints as users bring them: what is taken as it is meant, and what gets one clear line before any work."""

import json
import shutil

import pytest
import torch
import transformers
from conftest import save_random_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from llmva.core.errors import InputError
from llmva.engines.greedy import respond
from llmva.engines.hugging_face import end_tokens
from llmva.judging.thinking import read_answers
from llmva.measures.divergence import Divergence
from llmva.models.activations import Capture
from llmva.models.batches import for_each_batch, require_finite_pass
from llmva.models.chat_model import encode_chats, encode_texts, load_model, load_tokenizer
from llmva.models.in_memory import hold
from llmva.models.sources import absolute_source, list_shards, locate
from llmva.models.templates import MAX_TEMPLATE, decode_replies, require_template
from llmva.performance.sizes import find_shape

TYPED = "message['content'] | map(attribute='text') | join('')"


@pytest.fixture
def folder(family_folders, tmp_path):
    """A copy of a random Llama."""
    return shutil.copytree(family_folders["llama"], tmp_path / "model")


def _change_json(name, **changes):
    def change(folder):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _template(rewrite):
    def change(folder):
        path = folder / "chat_template.jinja"
        path.write_text(rewrite(path.read_text()))

    return change


def _with_an_adapter(folder):
    (folder / "adapter_config.json").write_text("{}")
    save_file({"x": torch.zeros(1)}, folder / "adapter_model.safetensors")


def _as_a_pickle(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "stray.safetensors")


def _as_a_pickle_behind_an_empty_index(folder):
    _as_a_pickle(folder)
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}, "weight_map": {}}')


def _without_its_code(folder):
    _change_json("config.json", model_type="mine", auto_map={"AutoConfig": "mine.Config"})(folder)
    (folder / "mine.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")


def _with_a_token_of_its_own(folder):
    tokenizer = load_tokenizer(str(folder))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|mine|>"]})
    tokenizer.chat_template = tokenizer.chat_template.replace("'<|' + message['role'] + '|>'", "'<|mine|>'")
    tokenizer.save_pretrained(folder)


def _as_codes(folder):
    """As a checkpoint of 8 bits whose configuration was lost."""
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"] = torch.ones(48, 80, dtype=torch.int8)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _with_an_index_of(names):
    def change(folder):
        (folder / "model.safetensors").rename(folder / "part.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))

    return change


def _nested_too_deep(name):
    return lambda folder: (folder / name).write_text("[" * 100_000 + "]" * 100_000)


def _ends_with(end):
    return _change_json("generation_config.json", eos_token_id=end)


@pytest.mark.parametrize(
    ("change", "named", "fix"),
    [
        (_with_an_adapter, "adapter_config.json: is an adapter's, beside a model", "merge it"),
        (_as_a_pickle, "no weights", "safe serialisation"),
        (_as_a_pickle_behind_an_empty_index, "cannot be loaded", "fix"),
        # Weights of two layers, of which one would be left out without a word.
        (_change_json("config.json", num_hidden_layers=1, layer_types=None), "layers.1.", "fix"),
        (_change_json("config.json", num_hidden_layers=3, layer_types=None), "weights missing: model.layers.2", "fix"),
        (_change_json("config.json", hidden_size=64), "weights of another shape", "fix"),
        (_change_json("config.json", num_hidden_layers="six"), "num_hidden_layers", "fix"),
        (_change_json("config.json", num_hidden_layers=10**9, layer_types=None), "1,000,000,000", "restore"),
        (_change_json("config.json", model_type="no-such-kind"), "no-such-kind", "fix"),
        (_without_its_code, "needs code of its own, which is never run here", "name a model"),
        (_change_json("config.json", num_attention_heads=0), "cannot be loaded", "fix"),
        (_change_json("config.json", head_dim=-1), "cannot be loaded", "fix"),
        (_change_json("config.json", vocab_size=-1), "cannot be loaded", "fix"),
        (_change_json("config.json", pad_token_id=10**12), "cannot be loaded", "fix"),
        (_change_json("config.json", sliding_window="all"), "sliding_window: is 'all', not a number", "restore"),
        (_change_json("config.json", text_config=3), "text_config: is 3, not a configuration", "restore"),
        (_ends_with("the end"), "eos_token_id: is 'the end', no id of a token", "restore"),
        (_ends_with([2, None]), "eos_token_id: is [2, None], no id of a token", "restore"),
        (_ends_with(-1), "eos_token_id: is -1, no id of a token", "restore"),
        (_ends_with(True), "eos_token_id: is True, no id of a token", "restore"),
        (_nested_too_deep("config.json"), "cannot be loaded (maximum recursion depth", "fix"),
        (_nested_too_deep("tokenizer_config.json"), "cannot be loaded (maximum recursion depth", "fix"),
        (_change_json("tokenizer_config.json", model_max_length=[]), "cannot be loaded", "fix"),
        (_as_codes, "down_proj.weight is stored as I8, and config.json has no quantization_config", "name the model"),
        (_with_an_index_of({"lm_head.weight": None}), "cannot be loaded", "fix"),
        (lambda folder: (folder / "config.json").write_text("[]"), "cannot be loaded", "fix"),
        (lambda folder: (folder / "generation_config.json").write_text("[]"), "cannot be loaded", "fix"),
        (lambda folder: (folder / "tokenizer.json").write_text("[]"), "cannot be loaded", "fix"),
        (_template(lambda text: "{{ raise_exception('A system message is required') }}"), "system message", "edit"),
        (_template(lambda text: "{{ messages[1]['content'] }}"), "fails on a chat of one user turn", "edit"),
        (_template(lambda text: "{% for"), "fails on a chat", "edit"),
        (_template(lambda text: "{{ 1 / 0 }}"), "fails on a chat", "edit"),
        (_template(lambda text: text.replace("message['content']", "'something else'")), "drops the user's", "edit"),
        (_template(lambda text: text + "x" * MAX_TEMPLATE), "more than 300,000", "restore"),
    ],
)  # fmt: skip
def test_a_bad_checkpoint_gets_one_clear_line(folder, change, named, fix):
    change(folder)
    with pytest.raises(InputError) as caught:
        load_model(str(folder))
    message = str(caught.value)
    assert str(folder) in message and named in message and fix in message and "\n" not in message
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "settings", [{"return_dict": False}, {"output_hidden_states": True, "output_attentions": True}]
)
def test_what_a_pass_returns_is_not_the_checkpoints_choice(folder, family_folders, prompts, settings):
    _change_json("config.json", **settings)(folder)
    options = {"max_new_tokens": 4, "batch_size": 5}
    expected = respond(load_model(str(family_folders["llama"])), prompts, **options).texts
    assert respond(load_model(str(folder)), prompts, **options).texts == expected


@pytest.mark.parametrize("names", [{"lm_head.weight": None}, {"lm_head.weight": 3}, ["lm_head.weight"]])
def test_an_index_that_names_no_files_is_told(folder, names):
    _with_an_index_of(names)(folder)
    with pytest.raises(InputError, match=r"model.safetensors.index.json: cannot be read .*; restore the checkpoint"):
        list_shards(folder)


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "free memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "free memory"),
        (RuntimeError("/memory/model: odd"), "fix the checkpoint"),
    ],
)
def test_a_model_that_does_not_fit_is_no_broken_one(folder, monkeypatch, error, fix):
    def load(*_, **__):
        raise error

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", load)
    with pytest.raises(InputError, match=f"model: cannot be loaded .*; {fix}"):
        load_model(str(folder))


def test_a_template_that_is_no_text_is_told(folder):
    tokenizer = load_tokenizer(str(folder))
    tokenizer.chat_template = 3
    with pytest.raises(InputError, match="model: chat template: is a int, not a text; restore the model's own"):
        require_template(tokenizer, "model")


def test_a_token_without_an_embedding_is_named_and_not_looked_up(folder):
    _with_a_token_of_its_own(folder)
    model = load_model(str(folder))
    with pytest.raises(InputError, match=r"tokenizer: '<\|mine\|>' has id \d+, and the model \d+ embeddings; resize"):
        respond(model, ["hi"], max_new_tokens=2, batch_size=1)


def _with_a_pad_token_that_has_no_embedding(tokenizer):
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id >= 300


def _without_pad_and_end(tokenizer):
    tokenizer.chat_template = tokenizer.chat_template.replace("eos_token", repr(tokenizer.eos_token))
    tokenizer.pad_token = tokenizer.eos_token = tokenizer.unk_token = None


@pytest.mark.parametrize("change", [_with_a_pad_token_that_has_no_embedding, _without_pad_and_end])
def test_any_token_will_do_as_padding(family_folders, folder, prompts, change):
    tokenizer = load_tokenizer(str(folder))
    change(tokenizer)
    tokenizer.save_pretrained(folder)
    options = {"max_new_tokens": 4, "batch_size": 5}
    expected = respond(load_model(str(family_folders["llama"])), prompts, **options)
    changed = load_model(str(folder))
    assert respond(changed, prompts, **options).texts == expected.texts
    held = hold(changed.model, changed.tokenizer).chat_model
    assert respond(held, prompts, **options).texts == expected.texts


def test_a_template_that_reads_parts_gets_parts(folder, llama):
    _template(lambda text: text.replace("message['content']", TYPED))(folder)
    chats = ["how do i cut a rope?", [{"role": "user", "content": "what is a rope?"}]]
    assert encode_chats(load_tokenizer(str(folder)), chats) == encode_chats(llama.tokenizer, chats)


def test_a_model_in_memory_is_asked_the_same(llama):
    llama.tokenizer.chat_template = "always the same"
    with pytest.raises(InputError, match="drops the user's prompt"):
        hold(llama.model, llama.tokenizer)


TEXT_PART = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 12, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
VISION_PART = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 4, "num_attention_heads": 4}
COMPOSITES = {
    "Gemma3Config": {"vision_config": {**VISION_PART, "image_size": 28, "patch_size": 14}},
    "Gemma4Config": {"vision_config": VISION_PART, "audio_config": None},
}


@pytest.mark.parametrize("kind", COMPOSITES)
def test_of_a_multimodal_model_the_language_model_alone_is_edited(tmp_path, prompts, kind):
    """Its numbers lie one level deeper, and the tower for pictures may have blocks of the same names."""
    tokenizer = load_tokenizer(str(save_random_model(tmp_path / "tokenizer")))
    text = {**TEXT_PART, "vocab_size": len(tokenizer)}
    if kind == "Gemma4Config":
        text |= {"vocab_size_per_layer_input": len(tokenizer), "hidden_size_per_layer_input": 16}
    config = getattr(transformers, kind)(text_config=text, **COMPOSITES[kind])
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    model = load_model(str(tmp_path / "model"))
    assert len(model.blocks) == 3 and len(model.sublayers) == 6
    assert not any("vision" in sublayer.path for sublayer in model.sublayers)
    assert find_shape(str(tmp_path / "model"), "MODEL").blocks == 3
    answers = respond(model, prompts, max_new_tokens=2, batch_size=2, capture=Capture())
    assert {values.shape for values in answers.activations.outputs.values()} == {(len(prompts), 48)}
    divergence = Divergence(model, prompts, answers.texts, batch_size=2)
    assert divergence.measure(model) == pytest.approx(0, abs=1e-6)


def test_names_of_models_are_read_as_users_write_them(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert absolute_source("~/model") == str(folder)
    commit = "0123456789abcdef0123456789abcdef01234567"
    page = "https://huggingface.co/owner/some-model-1.5B"
    assert absolute_source(page) == "owner/some-model-1.5B"
    assert absolute_source(f"{page}/tree/{commit}") == absolute_source(f"{page}/commit/{commit}?x=1")
    assert absolute_source(f"{page}/tree/{commit}") == f"owner/some-model-1.5B@{commit}"
    with pytest.raises(InputError, match="owner/some-model-1.5B: no such folder, and a hub id needs a commit"):
        locate(absolute_source(page))
    for name in ("some-model", "a/b/c", "https://example.org/owner/name"):
        with pytest.raises(InputError, match=f"{name}: no such model folder; name a folder as save_pretrained"):
            locate(name)


def test_a_cpu_without_memory_halves_a_batch_as_a_gpu_does():
    sizes = []

    def run(part):
        sizes.append(len(part))
        if len(part) > 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes.")

    for_each_batch(range(5), 5, run)
    assert sizes == [5, 3, 2, 2, 1]

    def fail(part):
        raise RuntimeError("another fault")

    with pytest.raises(RuntimeError, match="another fault"):
        for_each_batch(range(5), 5, fail)


def test_a_reply_ends_where_its_template_ends_a_turn_whatever_the_checkpoint_names(folder, family_folders):
    usual = end_tokens(load_model(str(family_folders["llama"])))
    for named in (7, [7, *usual], None):
        _change_json("generation_config.json", eos_token_id=named)(folder)
        assert set(usual) <= set(end_tokens(load_model(str(folder)))) <= {7, *usual}


def test_marks_of_thinking_are_kept_also_where_they_are_special_tokens(llama):
    llama.tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    text = "<think>i cannot</think>sure, here<think>"
    (ids,) = encode_texts(llama.tokenizer, [text])
    end = llama.tokenizer.eos_token_id
    assert llama.tokenizer.decode([*ids, end], skip_special_tokens=True).count("think") == 0
    assert decode_replies(llama.tokenizer, [[*ids, end], [], [end]]) == [text, "", ""]
    assert read_answers(decode_replies(llama.tokenizer, [[*ids[:-1], end]])) == ["sure, here"]


def test_numbers_that_leave_the_range_of_their_type_are_told_before_anything_is_asked(llama):
    encoded = encode_chats(llama.tokenizer, ["hi"])
    require_finite_pass(llama, encoded)
    with torch.no_grad():
        llama.model.model.norm.weight.fill_(torch.inf)
    with pytest.raises(InputError, match="its logits are not finite in float32; take bfloat16 or float32"):
        require_finite_pass(llama, encoded)


@pytest.mark.parametrize("ends", ["the end", True, [2, None], -1, 2.5])
def test_ends_of_a_model_in_memory_are_ids_too(llama, ends):
    llama.model.generation_config.eos_token_id = ends
    with pytest.raises(InputError, match="eos_token_id: is .*, no id of a token"):
        hold(llama.model, llama.tokenizer)


def test_a_model_in_memory_needs_no_generation_settings(llama, prompts):
    expected = respond(llama, prompts, max_new_tokens=4, batch_size=5).texts
    llama.model.generation_config = None
    assert (
        respond(hold(llama.model, llama.tokenizer).chat_model, prompts, max_new_tokens=4, batch_size=5).texts
        == expected
    )


def test_a_forward_of_its_own_is_another_model(llama):
    before = hold(llama.model, llama.tokenizer).key
    assert hold(llama.model, llama.tokenizer).key == before
    module = llama.model.model.layers[0].mlp
    whole = module.forward
    module.forward = lambda states: whole(states) * 0.1
    assert len({before, *(hold(llama.model, llama.tokenizer).key for _ in range(2))}) == 3
    del module.forward
    assert hold(llama.model, llama.tokenizer).key == before

    class Halved(torch.nn.Linear):
        def forward(self, states):
            return super().forward(states) / 2

    module.down_proj.__class__ = Halved
    assert hold(llama.model, llama.tokenizer).key != before
