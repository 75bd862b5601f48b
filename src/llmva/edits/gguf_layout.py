"""How llama.cpp has the architectures of transformers: their names, what a file says of their shape, their tensors."""

from functools import cache

import gguf
import torch
from transformers import PreTrainedConfig

from llmva.core.errors import InputError

# Those of which everything a model computes is known to be said by a file.
ARCHITECTURES = {
    "llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma2": "gemma2", "phi3": "phi3",
}  # fmt: skip
CONVERTER = "write CHECKPOINT=1, and try llama.cpp's convert_hf_to_gguf.py on its checkpoint/"
# llama.cpp caps Gemma's scores at 50 where a file says nothing; at this cap float32 is the same as without one.
NO_CAP = 1e6


def find_architecture(source: str, config: PreTrainedConfig) -> str:
    """Return what llama.cpp calls a model's family, or raise an `InputError` where its layout is not known here."""
    if (known := ARCHITECTURES.get(config.model_type)) is None:
        wrong = f"is {config.model_type!r}, which is not written as GGUF here (known are {', '.join(ARCHITECTURES)})"
        raise InputError(f"CHECKPOINT: {source}: config.json: model_type: {wrong}; {CONVERTER}")
    return known


def require_blocks(source: str, name: str, width: int, kind: gguf.GGMLQuantizationType) -> None:
    """Raise an `InputError` where the rows of a matrix are no whole number of a type's blocks."""
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    if width % block:
        wrong = f"has rows of {width}, and {kind.name} needs multiples of {block}"
        raise InputError(f"CHECKPOINT: {source}: {name}: {wrong}; write CHECKPOINT=gguf")


def add_shape(writer: gguf.GGUFWriter, config: PreTrainedConfig) -> None:
    """Add what a file says of a model's shape."""
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_vocab_size(config.vocab_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _add_attention(writer, config)
    if config.model_type == "gemma2":
        writer.add_sliding_window(config.sliding_window)
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping or NO_CAP)
        writer.add_final_logit_softcapping(config.final_logit_softcapping or NO_CAP)


def _add_attention(writer: gguf.GGUFWriter, config: PreTrainedConfig) -> None:
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])


def name_tensor(parameter: str, architecture: str, blocks: int) -> str:
    """Return what llama.cpp calls a parameter of transformers."""
    module, _, kind = parameter.rpartition(".")
    return f"{_tensor_names(architecture, blocks).get_name(module)}.{kind}"


@cache
def _tensor_names(architecture: str, blocks: int) -> gguf.TensorNameMap:
    (number,) = (number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    return gguf.get_tensor_name_map(number, blocks)


def lay_out(parameter: str, values: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """Return a parameter's float32 values as llama.cpp has them."""
    module = parameter.rpartition(".")[0]
    architecture = ARCHITECTURES[config.model_type]
    if architecture == "llama" and module.endswith("q_proj"):
        return _interleave(values, config.num_attention_heads)
    if architecture == "llama" and module.endswith("k_proj"):
        return _interleave(values, config.num_key_value_heads)
    # Gemma's norms multiply by 1 more than is stored.
    return values + 1 if architecture == "gemma2" and module.endswith("norm") else values


def _interleave(values: torch.Tensor, heads: int) -> torch.Tensor:
    """Put the halves of a head that a rotation joins side by side."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)
