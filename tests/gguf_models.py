"""GGUF files of random models, with the metadata and the layout that llama.cpp's converter writes."""

import json
from pathlib import Path

import gguf
import torch
from conftest import save_random_model
from transformers import AutoModelForCausalLM, AutoTokenizer

GgufType = gguf.GGMLQuantizationType
# Rows that every block size of 32 divides.
SHAPE_32 = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}
# Where llama.cpp knows a family by another name.
ARCHITECTURES = {"mistral": "llama"}


def save_random_gguf(path, family="llama", *, kind=GgufType.F16, change=None, **shape):
    """Save a random model of a family as a checkpoint folder, beside it as a GGUF file of a type; return the file.

    `change` is called with the writer before the file is written.
    """
    folder = save_random_model(Path(path).with_suffix(""), family, **{**SHAPE_32, **shape})
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    writer = gguf.GGUFWriter(path, ARCHITECTURES.get(family, family))
    add_shape(writer, model.config)
    add_tokenizer(writer, tokenizer)
    for name, tensor in tensors_of(model, writer.arch):
        stored = GgufType.F32 if tensor.ndim == 1 else kind
        writer.add_tensor(name, gguf.quantize(tensor.numpy(), stored), raw_dtype=stored)
    if change:
        change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_shape(writer, config):
    """Add what the converter says of a model."""
    writer.add_name("random")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    writer.add_value_length(width)
    if cap := getattr(config, "attn_logit_softcapping", None):
        writer.add_attn_logit_softcapping(cap)
    if cap := getattr(config, "final_logit_softcapping", None):
        writer.add_final_logit_softcapping(cap)


def add_tokenizer(writer, tokenizer):
    """Add a byte-level tokenizer and its chat template."""
    backend = tokenizer.backend_tokenizer
    words = [backend.id_to_token(number) for number in range(backend.get_vocab_size())]
    special = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.CONTROL if word in special else gguf.TokenType.NORMAL for word in words])
    writer.add_token_merges(merges_of(backend))
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.chat_template)


def merges_of(backend):
    """Return a tokenizer's merges, as two words and a space."""
    merges = json.loads(backend.to_str())["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def tensors_of(model, architecture):
    """Yield a model's tensors by their names in GGUF, laid out as llama.cpp has them."""
    config = model.config
    by_name = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(by_name[architecture], config.num_hidden_layers)
    for path, tensor in model.state_dict().items():
        if path == "lm_head.weight" and config.tie_word_embeddings:
            continue
        module, _, kind = path.rpartition(".")
        if architecture == "llama" and module.endswith(("q_proj", "k_proj")):
            heads = config.num_attention_heads if module.endswith("q_proj") else config.num_key_value_heads
            tensor = interleave(tensor, heads)
        if architecture == "gemma2" and module.endswith("norm"):
            tensor = tensor + 1
        yield f"{names.get_name(module)}.{kind}", tensor.float().contiguous()


def interleave(tensor, heads):
    """Put the halves that a rotation joins side by side, as llama.cpp has them."""
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)


def read_tensors(path):
    """Return the type and the bytes of each tensor of a file, by name."""
    return {each.name: (each.tensor_type, each.data.tobytes()) for each in gguf.GGUFReader(path).tensors}


def read_values(path, name):
    """Return a tensor's values in float32."""
    (tensor,) = (each for each in gguf.GGUFReader(path).tensors if each.name == name)
    return torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type))
