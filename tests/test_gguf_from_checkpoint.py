"""GGUF files of checkpoints: the file is the edited model, with its tokenizer, or is refused in one line."""

import json

import gguf
import pytest
import torch
from conftest import save_random_model
from gguf_models import SHAPE_32, GgufType, add_shape, read_tensors, read_values, save_random_gguf
from safetensors.torch import load_file, save_file
from test_gguf import log_of, logits_of
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers, processors
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoTokenizer

from llmva.core.errors import InputError
from llmva.edits.edited_model import EditedModel
from llmva.edits.gguf_export import export_gguf, require_gguf
from llmva.edits.log import EditLog
from llmva.edits.writers import edited_parameter
from llmva.engines.hugging_face import end_tokens
from llmva.models.chat_model import encode_chats, encode_texts, load_model, load_tokenizer
from llmva.models.gguf_files import read_gguf
from llmva.models.gguf_pre_tokenizers import PRE_TOKENIZERS
from llmva.organisms.families import FAMILIES

TEXTS = ["a  1 and 12 345", "how do i cut a rope?", " two\n\n lines\t of 3", "Größe, 繩子 🪢 ½", "<s>hi<|end|>"]


@pytest.fixture
def folder(tmp_path):
    """A random Llama's checkpoint."""
    return save_random_model(tmp_path / "model", **SHAPE_32)


def convert(folder, tmp_path, kind=None, log=None):
    return export_gguf(str(folder), log or EditLog(), tmp_path / "out", kind)


# The model


@pytest.mark.parametrize(("family", "tied"), [*((family, True) for family in FAMILIES), ("llama", False)])
def test_a_file_is_the_edited_model_of_a_checkpoint(tmp_path, prompts, family, tied):
    folder = save_random_model(tmp_path / "model", family, **SHAPE_32, tie_word_embeddings=tied)
    chat_model = load_model(str(folder))
    log = log_of(chat_model, ["mlp.00", "attention.01"])
    target = convert(folder, tmp_path, log=log)
    assert [each.name for each in target.parent.iterdir()] == ["model-edited.gguf"]
    before = logits_of(chat_model)
    with EditedModel(chat_model.writers) as edited, torch.no_grad():
        edited.apply(log)
        rounded = {name: each.half().float() for name, each in chat_model.model.state_dict().items() if each.ndim > 1}
        chat_model.model.load_state_dict(rounded, strict=False)
        read, after = load_model(str(target)), logits_of(chat_model)
    torch.testing.assert_close(logits_of(read), after, atol=2e-5, rtol=0)
    assert (after - before).abs().max() > 0.02
    assert encode_chats(read.tokenizer, prompts) == encode_chats(chat_model.tokenizer, prompts)
    assert end_tokens(read) == end_tokens(chat_model) == [2]
    assert read.tokenizer.chat_template == chat_model.tokenizer.chat_template
    for kind, data in read_tensors(target).values():
        assert kind in (GgufType.F32, GgufType.F16) and data
    assert ("output.weight" in read_tensors(target)) != tied


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2"])
def test_it_has_the_tensors_and_fields_of_llama_cpps_own_converter(tmp_path, family):
    shape = {"attn_logit_softcapping": 20.0} if family == "gemma2" else {}
    expected = save_random_gguf(tmp_path / "model.gguf", family, kind=GgufType.F16, **shape)
    target = convert(tmp_path / "model", tmp_path)
    assert read_tensors(target) == read_tensors(expected)
    writer = gguf.GGUFWriter(None, read_gguf(target).architecture)
    add_shape(writer, AutoConfig.from_pretrained(tmp_path / "model"))
    fields = read_gguf(target).metadata
    wanted = {key: field.value for key, field in writer.kv_data[0].items()} | {"general.name": "model-edited"}
    assert {key: fields[key] for key in wanted} == pytest.approx(wanted)
    assert fields["general.quantization_version"] == 2 and fields["general.type"] == "model"


def test_without_a_cap_gemmas_scores_are_not_capped(tmp_path):
    folder = save_random_model(tmp_path / "model", "gemma2", **SHAPE_32, initializer_range=1.0)
    read = load_model(str(convert(folder, tmp_path)))
    made_from = load_model(str(folder))
    made_from.model.load_state_dict(
        {name: each.half().float() for name, each in made_from.model.state_dict().items() if each.ndim > 1},
        strict=False,
    )
    expected = logits_of(made_from)
    torch.testing.assert_close(logits_of(read), expected, atol=1e-3, rtol=1e-4)
    read.model.config.attn_logit_softcapping = 50.0
    for block in read.blocks:
        block.self_attn.attn_logit_softcapping = 50.0
    assert (logits_of(read) - expected).abs().max() > 0.01


def test_its_name_is_none_that_llama_cpp_reads_a_tokenizer_from(tmp_path):
    for name, expected in (("my-phi3", "my-Phi 3-edited"), ("Phi-3", "Phi 3-edited"), ("mistral", "mistral-edited")):
        path = convert(save_random_model(tmp_path / name, **SHAPE_32), tmp_path)
        assert path.name == f"{name}-edited.gguf" and read_gguf(path).metadata["general.name"] == expected


# Types


def test_all_matrices_of_a_checkpoint_can_be_of_8_bits(folder, tmp_path):
    log = log_of(load_model(str(folder)), ["mlp.01"])
    target = convert(folder, tmp_path, GgufType.Q8_0, log)
    tensors, weights = read_tensors(target), load_file(folder / "model.safetensors")
    assert {name for name, (kind, _) in tensors.items() if kind != GgufType.Q8_0} == {
        "output_norm.weight", *(f"blk.{block}.{norm}_norm.weight" for block in (0, 1) for norm in ("attn", "ffn")),
    }  # fmt: skip
    exact = edited_parameter("weight", weights["model.layers.1.mlp.down_proj.weight"], log.edits_of("mlp.01"))
    assert tensors["blk.1.ffn_down.weight"][1] == gguf.quantize(exact.numpy(), GgufType.Q8_0).tobytes()
    assert read_gguf(target).metadata["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0
    assert load_model(str(target)).writers


@pytest.mark.parametrize("kind", [GgufType.Q4_0, GgufType.F32, GgufType.Q8_0])
def test_edited_tensors_of_a_file_can_be_of_8_bits(tmp_path, kind):
    path = save_random_gguf(tmp_path / "model.gguf", kind=kind, attention_bias=True)
    log = log_of(load_model(str(tmp_path / "model")), ["attention.00"])
    before = read_tensors(path)
    after = read_tensors(export_gguf(str(path), log, tmp_path / "out", GgufType.Q8_0))
    name = "blk.0.attn_output"
    assert {key for key in before if before[key] != after[key]} == {f"{name}.weight", f"{name}.bias"}
    exact = edited_parameter("weight", read_values(path, f"{name}.weight"), log.edits_of("attention.00"))
    assert after[f"{name}.weight"] == (GgufType.Q8_0, gguf.quantize(exact.numpy(), GgufType.Q8_0).tobytes())
    assert after[f"{name}.bias"][0] == GgufType.F32


def test_rows_that_no_block_divides_are_refused_before_any_work(tmp_path):
    shape = {"hidden_size": 64, "intermediate_size": 80}
    path = save_random_gguf(tmp_path / "model.gguf", **shape)
    for source, name in ((path, "blk.0.ffn_down.weight"), (tmp_path / "model", "model.layers.0.mlp.down_proj.weight")):
        with pytest.raises(
            InputError, match=rf": {name}: has rows of 80, and Q8_0 needs multiples of 32; write CHECKP"
        ):
            require_gguf(str(source), GgufType.Q8_0)
        require_gguf(str(source))


# The tokenizer


def change_tokenizer(folder, change):
    """Save a folder's tokenizer again after a change."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    change(tokenizer, tokenizer.backend_tokenizer)
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_the_way_of_cutting_texts_is_named_and_read_again(folder, tmp_path, name):
    def change(tokenizer, backend):
        backend.pre_tokenizer = PRE_TOKENIZERS[name]
        backend.model.ignore_merges = name == "llama-bpe"

    change_tokenizer(folder, change)
    target = convert(folder, tmp_path)
    assert read_gguf(target).metadata["tokenizer.ggml.pre"] == name
    for other in (str(target), str(folder)):
        tokenizer = load_tokenizer(other)
        assert tokenizer.backend_tokenizer.model.ignore_merges == (name == "llama-bpe")
        pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a  12, 345")
        assert [piece for piece, _ in pieces] == {
            "llama-bpe": ["a", "Ġ", "Ġ", "12", ",", "Ġ", "345"],
            "gpt-2": ["a", "Ġ", "Ġ12", ",", "Ġ345"],
            "smollm": ["a", "ĠĠ", "1", "2", ",", "Ġ", "3", "4", "5"],
            "qwen2": ["a", "Ġ", "Ġ", "1", "2", ",", "Ġ", "3", "4", "5"],
        }[name]
    assert encode_texts(load_tokenizer(str(target)), TEXTS) == encode_texts(load_tokenizer(str(folder)), TEXTS)


def test_special_and_other_added_tokens_padding_and_frame_are_kept(folder, tmp_path):
    def change(tokenizer, backend):
        tokenizer.add_tokens(["<tool>", "<think>"])
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|more|>"]})
        tokenizer.add_bos_token = True
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])

    count = len(AutoTokenizer.from_pretrained(folder))
    save_random_model(folder, **SHAPE_32, vocab_size=count + 10)
    change_tokenizer(folder, change)
    target = convert(folder, tmp_path)
    ours, read = load_tokenizer(str(folder)), load_tokenizer(str(target))
    text = "a <tool>1<think> <|more|>b"
    assert ours(text)["input_ids"] == read(text)["input_ids"] and read(text)["input_ids"][0] == 1
    assert {count, count + 1, count + 2} < set(read(text)["input_ids"])
    assert (read.pad_token_id, read.bos_token_id, read.eos_token_id) == (0, 1, 2)
    (kinds,) = (field for name, field in gguf.GGUFReader(target).fields.items() if name.endswith("token_type"))
    assert kinds.contents()[:3] == [3, 3, 3] and kinds.contents()[count:] == [4, 4, 3, *[5] * 7]


def test_up_to_three_ends_are_kept(folder, tmp_path):
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"eos_token_id": [7, 2, 5]}))
    target = convert(folder, tmp_path)
    assert end_tokens(load_model(str(target))) == [2, 5, 7]
    assert read_gguf(target).metadata["tokenizer.ggml.eos_token_id"] == 2
    # What the template ends a turn with, which the checkpoint does not name.
    path.write_text(json.dumps(settings | {"eos_token_id": [5]}))
    assert sorted(end_tokens(load_model(str(convert(folder, tmp_path))))) == [2, 5]
    path.unlink()
    assert end_tokens(load_model(str(convert(folder, tmp_path)))) == [2]


# What is refused


def set_config(**changes):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def set_tokenizer(change):
    return lambda folder: change_tokenizer(folder, change)


def set_part(part, value):
    return set_tokenizer(lambda _, backend: setattr(backend, part, value))


def special(word, **flags):
    return AddedToken(word, special=True, normalized=False, **flags)


def set_ends(ends):
    return lambda folder: (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))


def set_weights(change):
    def rewrite(folder):
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return rewrite


OTHER_SPLIT = pre_tokenizers.Sequence(
    [pre_tokenizers.Split(Regex(r"\p{L}+"), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
)
ROPE = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256}  # fmt: skip
REFUSED = {
    "architecture": (set_config(model_type="gpt_neox"), "config.json: model_type: is 'gpt_neox', which is not written"),
    "experts": (set_config(model_type="mixtral"), "config.json: model_type: is 'mixtral', which is not written"),
    "positions": (set_config(rope_parameters=ROPE), "config.json: rope_parameters: scales positions (llama3), which"),
    "activation": (set_config(hidden_act="gelu"), "config.json: hidden_act: is 'gelu', where a GGUF file wou"),
    "biases": (set_config(attention_bias=True), "config.json: attention_bias: is True, where a GGUF fi"),
    "window": (set_config(model_type="mistral", sliding_window=64), "config.json: sliding_window: is 64, where a G"),
    "ties": (set_config(model_type="gemma2", tie_word_embeddings=False), "tie_word_embeddings: is false, and llama"),
    "sentencepiece": (
        set_part("decoder", None), "tokenizer.json: is no byte-level BPE, as SentencePiece's are not; write"
    ),
    "cutting": (set_part("pre_tokenizer", OTHER_SPLIT), "tokenizer.json: pre_tokenizer: cuts texts in none of the"),
    "normaliser": (set_part("normalizer", normalizers.Lowercase()), "tokenizer.json: normalizer: is Lowercase, and"),
    "whole words": (
        set_part("pre_tokenizer", PRE_TOKENIZERS["llama-bpe"]), "pre_tokenizer: cuts texts in none of the ways"
    ),
    "strip": (
        set_tokenizer(lambda _, backend: backend.add_special_tokens([special("<|end|>", rstrip=True)])),
        "tokenizer.json: added_tokens: <|end|> has rstrip, which llama.cpp does not know",
    ),
    "more tokens": (
        set_tokenizer(lambda tokenizer, _: tokenizer.add_tokens(["<more>"])), "where the model has embeddings of",
    ),
    "spelling": (
        set_config(vocab_size=500),
        set_tokenizer(lambda _, backend: backend.add_special_tokens([special("<｜é｜>")])),
        "tokenizer.json: has '<｜é｜> 1 ' in other tokens than a GGUF file's would be",
    ),
    "frame": (
        set_part("post_processor", processors.TemplateProcessing("$A <|user|>", special_tokens=[("<|user|>", 4)])),
        "tokenizer.json: post_processor: puts more around a text than its beginning and its end",
    ),
    "many ends": (set_ends([2, 3, 4, 5]), "generation_config.json: eos_token_id: 4 tokens end a reply, and"),
    "template": (
        set_ends([5]),
        lambda folder: (folder / "chat_template.jinja").write_text(
            "{{ eos_token }}{% for message in messages %}{{ message['content'] + '<|assistant|>' }}{% endfor %}"
        ),
        "chat_template: writes other tokens than it would in a GGUF file",
    ),
    "more tensors": (
        set_weights(lambda weights: weights.update({"model.layers.0.extra.weight": torch.zeros(2)})),
        "model.safetensors: model.layers.0.extra.weight: is no part of such a model",
    ),
    "fewer tensors": (set_weights(lambda weights: weights.pop("model.norm.weight")), "has no model.norm.weight; "),
    "shape": (
        set_weights(lambda weights: weights.update({"model.norm.weight": torch.zeros(2)})),
        "model.norm.weight: has shape (2,), and config.json says (64,); restore the checkpoint",
    ),
    "type": (
        set_weights(lambda weights: weights.update({"model.norm.weight": torch.zeros(64, dtype=torch.int8)})),
        "model.norm.weight: is of type I8; name a base in bfloat16, float16 or float32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_file_would_not_say_is_refused_in_one_line(folder, tmp_path, case):
    *changes, expected = REFUSED[case]
    for change in changes:
        change(folder)
    with pytest.raises(InputError) as caught:
        export_gguf(str(folder), EditLog(), tmp_path / "out")
    line = str(caught.value)
    assert line.startswith("CHECKPOINT: ") and str(folder) in line and expected in line and "\n" not in line, line
    assert not (tmp_path / "out").exists()


def test_what_fails_while_it_is_written_leaves_nothing(folder, tmp_path):
    set_weights(lambda weights: weights["model.embed_tokens.weight"].fill_(7e4))(folder)
    require_gguf(str(folder))
    with pytest.raises(
        InputError, match=r"model\.embed_tokens\.weight: has larger values than F16; write CHECKPOINT=1"
    ):
        convert(folder, tmp_path)
    assert not list((tmp_path / "out").iterdir())


def test_edits_of_another_model_are_refused(folder, tmp_path):
    for shape, expected in (
        ({"intermediate_size": 128}, r"made for another mlp\.01, of shape"),
        ({"attention_bias": True}, r"has no bias of attention\.01; name the model"),
        ({"num_hidden_layers": 3}, r"has no mlp\.02; name the model that the edits were made for"),
    ):
        other = load_model(str(save_random_model(tmp_path / "other", **SHAPE_32 | shape)))
        names = ["mlp.02"] if "num_hidden_layers" in shape else ["mlp.01", "attention.01"]
        with pytest.raises(InputError, match=expected):
            convert(folder, tmp_path, log=log_of(other, names))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
