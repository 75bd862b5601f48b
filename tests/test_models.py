"""Loading: one path for every family, one tokenisation path, one clear line for a bad folder."""

import copy
import json
import shutil

import pytest
import torch
from conftest import SHAPE, save_random_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from llmva.core.errors import InputError
from llmva.core.store import run_stage
from llmva.models.chat_model import encode_chats, load_model, load_tokenizer
from llmva.models.sources import checkpoint_key, split_source
from llmva.models.sublayers import list_sublayers


def test_sublayers_are_attention_then_mlp(family_model):
    layers = range(SHAPE["num_hidden_layers"])
    names = [sublayer.name for sublayer in family_model.sublayers]
    assert names == [f"attention.{i:02d}" for i in layers] + [f"mlp.{i:02d}" for i in layers]
    for sublayer in family_model.sublayers:
        assert sublayer.module.weight.shape[0] == SHAPE["hidden_size"]
    assert len(family_model.blocks) == SHAPE["num_hidden_layers"]


def test_more_than_ten_layers_stay_in_numeric_order():
    def block():
        return torch.nn.ModuleDict({"self_attn": torch.nn.ModuleDict({"o_proj": torch.nn.Linear(2, 2)})})

    model = torch.nn.ModuleDict(
        {"model": torch.nn.ModuleDict({"layers": torch.nn.ModuleList(block() for _ in range(12))})}
    )
    assert [sublayer.layer for sublayer in list_sublayers(model)] == list(range(12))


def test_one_beginning_of_sequence_and_no_other_special_tokens(family_model):
    tokenizer = family_model.tokenizer
    (ids,) = encode_chats(tokenizer, ["how do i cut a rope?"])
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "how do i cut a rope?"}], tokenize=False, add_generation_prompt=True
    )
    assert tokenizer.decode(ids) == text


def test_text_that_looks_like_a_template_does_not_add_a_token(llama):
    plain, spoofed = encode_chats(llama.tokenizer, ["hi", "hi<|end|>"])
    assert len(spoofed) - len(plain) == 1  # The user's own text, and nothing the tokenizer added.


def test_padding_is_left(llama):
    assert llama.tokenizer.padding_side == "left"


def _damaged(folder, tmp_path, change):
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    change(copy)
    return str(copy)


def _without_template(folder):
    for path in folder.glob("chat_template*"):
        path.unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _with_a_tensor_missing(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.self_attn.o_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _with_a_shard_missing(folder):
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="30KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def _cut_off(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _with_nan(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "named", "fix"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights", "safe serialisation"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json", "save_pretrained"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"broken"), "cannot be loaded", "fix"),
        (_cut_off, "cannot be loaded", "fix"),
        (_with_a_tensor_missing, "o_proj.weight", "fix"),
        # As a download leaves it that broke off.
        (_with_a_shard_missing, "cannot be loaded", "fix"),
        (_without_template, "no chat template", "add chat_template.jinja"),
        (_with_nan, "model.layers.1.mlp.down_proj.weight holds NaN", "restore"),
    ],
)
def test_a_bad_folder_gets_one_clear_line(family_folders, tmp_path, change, named, fix):
    source = _damaged(family_folders["llama"], tmp_path, change)
    with pytest.raises(InputError) as caught:
        load_model(source)
    message = str(caught.value)
    assert source in message and named in message and fix in message and "\n" not in message


def test_of_several_templates_the_default_one_is_taken(family_folders, tmp_path):
    folder = shutil.copytree(family_folders["llama"], tmp_path / "model")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("tools {{ messages[0]['content'] }}")
    plain, several = load_tokenizer(str(family_folders["llama"])), load_tokenizer(str(folder))
    assert encode_chats(several, ["hello"]) == encode_chats(plain, ["hello"])
    (folder / "additional_chat_templates" / "default.jinja").unlink(missing_ok=True)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="none is `default`"):
        load_tokenizer(str(folder))


def test_a_damaged_organism_is_noticed(tmp_path):
    def compute(place):
        save_random_model(place)

    folder = run_stage(tmp_path / "organism", compute, parameters={}).folder
    assert load_model(str(folder)).sublayers
    (folder / "generation_config.json").write_text("{}")
    with pytest.raises(InputError, match="make organisms"):
        load_model(str(folder))


def test_gpus_share_a_model_and_keep_a_reserve(family_folders, monkeypatch):
    asked = {}

    def loaded(location, **options):
        asked.update(options)
        raise ValueError("far enough")

    gigabyte = 2**30
    free = {0: (30 * gigabyte, 80 * gigabyte), 1: (10 * gigabyte, 80 * gigabyte)}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(free))
    monkeypatch.setattr("torch.cuda.mem_get_info", free.get)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", loaded)
    with pytest.raises(InputError, match="far enough"):
        load_model(str(family_folders["llama"]))
    assert asked["device_map"] == "auto" and asked["max_memory"][1] == 0
    # 30 are free, and 16 of 80 are not for weights.
    assert asked["max_memory"][0] == pytest.approx(14 * gigabyte) and asked["max_memory"]["cpu"] > 0


def test_a_missing_folder_and_an_unpinned_hub_id_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="make organisms"):
        load_model("runs/tiny-nobody/organism")
    for moving in ("someone/some-model", "someone/some-model@main", "someone/some-model@v1.0"):
        with pytest.raises(InputError, match="needs a commit; write someone/some-model@<40 hex digits>"):
            load_model(moving)


def test_a_model_that_cannot_be_fetched_says_how_to_go_on():
    with pytest.raises(InputError) as caught:
        load_model("owner/name@0123456789abcdef0123456789abcdef01234567")
    line = str(caught.value)
    assert line.startswith("owner/name@0123") and "\n" not in line
    assert "check the network and run again, what was fetched is kept" in line
    assert "accept its licence on https://huggingface.co/owner/name and log in with `hf auth login`" in line


def test_the_checkpoint_key_follows_the_weights(tmp_path):
    first = checkpoint_key(str(save_random_model(tmp_path / "a", seed=0)))
    assert checkpoint_key(str(save_random_model(tmp_path / "b", seed=0))) == first
    assert checkpoint_key(str(save_random_model(tmp_path / "c", seed=1))) != first
    assert checkpoint_key("owner/name@abc") == "owner/name@abc"


def test_a_folder_may_have_any_sign_in_its_name(tmp_path):
    folder = str(save_random_model(tmp_path / "tuned@v2"))
    assert split_source(folder) == (folder, "") and split_source("owner/name@abc") == ("owner/name", "abc")
    assert load_model(folder).source == folder


def test_a_template_that_can_think_is_told_not_to(llama):
    tokenizer = copy.deepcopy(llama.tokenizer)
    switch = "{% if enable_thinking is defined and enable_thinking is false %} at once{% endif %}"
    tokenizer.chat_template = "{{ messages[0]['content'] }}" + switch
    (ids,) = encode_chats(tokenizer, [[{"role": "user", "content": "hi"}]])
    assert ids == tokenizer("hi at once", add_special_tokens=False)["input_ids"]
