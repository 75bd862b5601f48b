"""Edits that travel: as a plain checkpoint and as a LoRA adapter, loaded by others without this package."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from conftest import SHAPE, save_random_model
from peft import PeftModel
from test_edits import unit_vectors
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.edits.adapter import export_adapter
from llmva.edits.checkpoint import export_checkpoint
from llmva.edits.edited_model import EditedModel
from llmva.edits.log import EditLog
from llmva.method.edit import solve_edit
from llmva.models.chat_model import load_model
from llmva.organisms.families import FAMILIES

COMMIT = "0123456789abcdef" * 2 + "01234567"
PROMPTS = torch.arange(5, 35).reshape(3, 10)
WIDTH = SHAPE["hidden_size"]


def log_of(chat_model, iterations=3, sublayers=None):
    """Edit some sublayers as the loop does; the first one gets an edit fewer."""
    log = EditLog()
    with EditedModel(chat_model.writers) as edited:
        for iteration in range(iterations):
            names = sublayers or sorted(chat_model.writers)
            edits = [
                solve_edit(
                    edited.weight(name), edited.bias(name), sublayer=name, scale=0.8,
                    **dict(zip(("answer", "benign"), unit_vectors(31 * iteration + place, length=WIDTH), strict=True)),
                )
                for place, name in enumerate(names[min(iteration, 1) :])
            ]  # fmt: skip
            log = log.appended(edits)
            edited.apply(log)
    return log


@torch.inference_mode()
def logits_of(model):
    return model(PROMPTS).logits.float()


@pytest.fixture(params=list(FAMILIES))
def family(request):
    return request.param


# The checkpoint


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_plain_transformers_loads_the_edited_model_to_the_bit(tmp_path, family, dtype):
    base = AutoModelForCausalLM.from_pretrained(save_random_model(tmp_path / "first", family))
    base.to(getattr(torch, dtype)).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "base")
    chat_model = load_model(str(tmp_path / "base"), dtype=dtype)
    log = log_of(chat_model)
    export_checkpoint(str(tmp_path / "base"), log, tmp_path / "edited")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "edited")
    assert loaded.dtype == getattr(torch, dtype)
    before = logits_of(chat_model.model)
    with EditedModel(chat_model.writers) as edited:
        edited.apply(log)
        for name, weight in chat_model.model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], weight), name
        after = logits_of(chat_model.model)
    assert torch.equal(logits_of(loaded), after) and not torch.equal(before, after)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "edited")
    assert tokenizer.chat_template == chat_model.tokenizer.chat_template


def test_types_shards_and_untouched_tensors_stay_as_they_are(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(save_random_model(tmp_path / "first", "phi3"))
    model.to(torch.bfloat16).save_pretrained(tmp_path / "base", max_shard_size="30KB")
    AutoTokenizer.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "pytorch_model.bin").write_bytes(b"the unedited weights, in another format")
    (tmp_path / "base" / "consolidated.safetensors").write_bytes(b"the unedited weights, by other names")
    chat_model = load_model(str(tmp_path / "base"), dtype="float32")
    log = log_of(chat_model, sublayers=["attention.01", "mlp.00"])
    export_checkpoint(str(tmp_path / "base"), log, tmp_path / "edited")
    shards = sorted(path.name for path in (tmp_path / "base").glob("model*.safetensors"))
    assert len(shards) > 3 and shards == sorted(path.name for path in (tmp_path / "edited").glob("*.safetensors"))
    assert not (tmp_path / "edited" / "pytorch_model.bin").exists()
    changed = set()
    for name in shards:
        with (
            safetensors.safe_open(tmp_path / "base" / name, framework="pt") as base,
            safetensors.safe_open(tmp_path / "edited" / name, framework="pt") as edited,
        ):
            assert list(base.keys()) == list(edited.keys()) and base.metadata() == edited.metadata()
            for key in base.keys():  # noqa: SIM118
                assert edited.get_tensor(key).dtype == torch.bfloat16
                if not torch.equal(base.get_tensor(key), edited.get_tensor(key)):
                    changed.add(key)
    assert changed == {"model.layers.0.mlp.down_proj.weight", "model.layers.1.self_attn.o_proj.weight"}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "edited").dtype == torch.bfloat16


@pytest.fixture
def sharded(tmp_path):
    """A base in many shards."""
    model = AutoModelForCausalLM.from_pretrained(save_random_model(tmp_path / "first", "phi3"))
    model.save_pretrained(tmp_path / "base", max_shard_size="30KB")
    AutoTokenizer.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_a_single_file_goes_before_the_index_of_an_earlier_save(tmp_path, sharded):
    newer = AutoModelForCausalLM.from_pretrained(save_random_model(tmp_path / "newer", "phi3", seed=1))
    shutil.copyfile(tmp_path / "newer" / "model.safetensors", sharded / "model.safetensors")
    chat_model = load_model(str(sharded))
    assert torch.equal(logits_of(chat_model.model), logits_of(newer))
    log = log_of(chat_model)
    export_checkpoint(str(sharded), log, tmp_path / "edited")
    assert not list((tmp_path / "edited").glob("*.index.json"))
    assert [path.name for path in (tmp_path / "edited").glob("*.safetensors")] == ["model.safetensors"]
    with EditedModel(chat_model.writers) as edited:
        edited.apply(log)
        after = logits_of(chat_model.model)
    assert torch.equal(logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "edited")), after)


def test_a_shard_that_is_not_there_is_named_even_if_nothing_in_it_is_edited(tmp_path, sharded):
    log = log_of(load_model(str(sharded)), sublayers=["mlp.00", "mlp.01"])
    index = json.loads((sharded / "model.safetensors.index.json").read_text())["weight_map"]
    shard = index["model.embed_tokens.weight"]
    assert not any("down_proj" in name for name, own in index.items() if own == shard)
    (sharded / shard).unlink()
    with pytest.raises(InputError, match=rf"index\.json: names {shard}, which the folder lacks; restore"):
        export_checkpoint(str(sharded), log, tmp_path / "edited")
    for path in sharded.glob("model*"):
        path.rename(sharded / f"old-{path.name}")
    with pytest.raises(InputError, match=r"base: no weights \(model\.safetensors\); save the model"):
        export_checkpoint(str(sharded), log, tmp_path / "edited")
    assert not (tmp_path / "edited").exists()


FROM_THE_HUB = """
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from llmva.edits.checkpoint import export_checkpoint
from llmva.edits.log import EditLog
from llmva.models.chat_model import load_model

source, log, folder = sys.argv[1], EditLog.load(Path(sys.argv[2])), Path(sys.argv[3])
chat_model = load_model(source)
export_checkpoint(source, log, folder)
with torch.inference_mode():
    logits = chat_model.model(torch.arange(5, 35).reshape(3, 10)).logits
save_file({"logits": logits}, folder.parent / "logits.safetensors")
"""


@pytest.mark.parametrize("variable, below", [("HF_HUB_CACHE", ""), ("HF_HOME", "hub")])
def test_a_hub_model_is_loaded_and_exported_from_the_hubs_cache(tmp_path, llama, family_folders, variable, below):
    repository = tmp_path / "cache" / below / "models--owner--name"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    # As the hub's client leaves it: the files themselves lie elsewhere.
    (repository / "blobs").mkdir()
    for path in family_folders["llama"].iterdir():
        shutil.copyfile(path, repository / "blobs" / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    log = log_of(llama)
    log.save(tmp_path / "log.safetensors", {})
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_CACHE", "HF_HOME")}
    environment |= {variable: str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(paths.ROOT / "src")}
    arguments = [f"owner/name@{COMMIT}", tmp_path / "log.safetensors", tmp_path / "edited"]
    subprocess.run([sys.executable, "-c", FROM_THE_HUB, *map(str, arguments)], env=environment, check=True)
    loaded = safetensors.torch.load_file(tmp_path / "logits.safetensors")["logits"]
    torch.testing.assert_close(loaded, logits_of(llama.model), atol=1e-5, rtol=0)
    with EditedModel(llama.writers) as edited:
        edited.apply(log)
        after = logits_of(llama.model)
    assert torch.equal(logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "edited")), after)
    assert {path.name for path in (tmp_path / "edited").iterdir()} == {path.name for path in snapshot.iterdir()}
    assert not any(path.is_symlink() for path in (tmp_path / "edited").iterdir())


def test_no_edits_give_the_base_back(tmp_path, family_folders):
    export_checkpoint(str(family_folders["llama"]), EditLog(), tmp_path / "same")
    names = {path.name for path in family_folders["llama"].iterdir()}
    assert {path.name for path in (tmp_path / "same").iterdir()} == names
    for name in names:
        assert (tmp_path / "same" / name).read_bytes() == (family_folders["llama"] / name).read_bytes()


def test_edits_of_another_model_are_refused(tmp_path, family_folders):
    deeper = load_model(str(save_random_model(tmp_path / "deeper", num_hidden_layers=3)))
    log = log_of(deeper, sublayers=["mlp.00", "mlp.02"])
    with pytest.raises(InputError, match=r"llama: has no mlp\.02; name the model that the edits were made for"):
        export_checkpoint(str(family_folders["llama"]), log, tmp_path / "edited")
    with pytest.raises(InputError, match=r"has no mlp\.02; use the model the edits were made for"):
        export_adapter(load_model(str(family_folders["llama"])), log, tmp_path / "adapter")


def test_edits_of_another_shape_or_of_a_bias_that_is_not_there_are_refused(tmp_path, family_folders):
    wider = load_model(str(save_random_model(tmp_path / "wider", intermediate_size=96)))
    with pytest.raises(InputError, match=r"made for another mlp\.00, of shape .* use the model they were made for"):
        export_checkpoint(str(family_folders["llama"]), log_of(wider, sublayers=["mlp.00"]), tmp_path / "edited")
    (edit,) = log_of(load_model(str(family_folders["llama"])), 1, sublayers=["mlp.00"]).edits_of("mlp.00")
    with pytest.raises(InputError, match=r"llama: has no bias of mlp\.00; name the model"):
        export_checkpoint(
            str(family_folders["llama"]), EditLog().appended([replace(edit, bias_step=1.0)]), tmp_path / "edited"
        )


def test_a_hub_model_that_was_never_fetched_is_named(tmp_path):
    with pytest.raises(
        InputError, match=f"nobody/nothing@{COMMIT}: its files are not on this machine; load the model once"
    ):
        export_checkpoint(f"nobody/nothing@{COMMIT}", EditLog(), tmp_path / "edited")


# The adapter


def test_peft_loads_the_adapter_and_answers_as_the_edited_model(tmp_path, family_model):
    log = log_of(family_model)
    export_adapter(family_model, log, tmp_path / "adapter")
    before = logits_of(family_model.model)
    with EditedModel(family_model.writers) as edited:
        edited.apply(log)
        after = logits_of(family_model.model)
    adapted = PeftModel.from_pretrained(family_model.model, tmp_path / "adapter")
    with_adapter = logits_of(adapted)
    # The same product in another order; the difference that the edits make is far larger.
    assert (with_adapter - after).abs().max() < 1e-4 < 0.01 < (before - after).abs().max()
    with adapted.disable_adapter():
        assert torch.equal(logits_of(adapted), before)


def test_in_bfloat16_the_difference_is_that_of_rounding(tmp_path, family_folders):
    chat_model = load_model(str(family_folders["llama"]), dtype="bfloat16")
    log = log_of(chat_model)
    export_adapter(chat_model, log, tmp_path / "adapter")
    exact = load_model(str(family_folders["llama"]), dtype="bfloat16")
    exact.model.float()
    with EditedModel(exact.writers) as edited:
        edited.apply(log)
        truth = logits_of(exact.model)
    with EditedModel(chat_model.writers) as edited:
        edited.apply(log)
        rounded = (logits_of(chat_model.model) - truth).abs().max()
    adapted = PeftModel.from_pretrained(chat_model.model, tmp_path / "adapter")
    assert (logits_of(adapted) - truth).abs().max() < 2 * rounded


def test_the_rank_is_the_number_of_edits_and_the_base_is_pinned(tmp_path, llama):
    object.__setattr__(llama, "source", f"owner/name@{COMMIT}")
    export_adapter(llama, log_of(llama, iterations=4), tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 4 and not config["lora_bias"]
    assert (config["base_model_name_or_path"], config["revision"]) == ("owner/name", COMMIT)
    with safetensors.safe_open(tmp_path / "adapter" / "adapter_model.safetensors", framework="pt") as file:
        # The first sublayer had one edit of four.
        first = file.get_tensor("base_model.model.model.layers.0.self_attn.o_proj.lora_B.weight")
        assert first.shape == (WIDTH, 4) and first[:, 1:].abs().max() == 0 < first[:, 0].abs().max()


def test_biases_travel_too(tmp_path):
    chat_model = load_model(str(save_random_model(tmp_path / "model", "llama", attention_bias=True, mlp_bias=True)))
    assert chat_model.writers["mlp.00"].bias is not None
    log = log_of(chat_model)
    export_adapter(chat_model, log, tmp_path / "adapter")
    export_checkpoint(str(tmp_path / "model"), log, tmp_path / "edited")
    with EditedModel(chat_model.writers) as edited:
        edited.apply(log)
        after = logits_of(chat_model.model)
    assert torch.equal(logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "edited")), after)
    adapted = PeftModel.from_pretrained(chat_model.model, tmp_path / "adapter")
    assert (logits_of(adapted) - after).abs().max() < 1e-4


def test_an_empty_log_has_no_adapter(tmp_path, llama):
    with pytest.raises(InputError, match="edits: none in this log"):
        export_adapter(llama, EditLog(), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
