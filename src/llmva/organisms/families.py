"""The architectures: six families of organisms, each with a shape of its own, and the guard."""

from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

COMMON_SHAPE = {
    "hidden_size": 96,
    "intermediate_size": 288,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "initializer_range": 0.05,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_cache": True,
}
# Equal shapes and seeds would make Mistral a copy of Llama; differing widths keep the six apart.
ARCHITECTURES: dict[str, tuple[type[PretrainedConfig], dict]] = {
    "llama": (LlamaConfig, {}),
    "gemma2": (
        Gemma2Config,
        # No soft cap on attention scores: it costs time, and scores this small never come near it.
        {"head_dim": 24, "query_pre_attn_scalar": 24, "sliding_window": 256, "attn_logit_softcapping": None},
    ),
    "mistral": (MistralConfig, {"num_attention_heads": 6, "intermediate_size": 272, "sliding_window": None}),
    "phi3": (Phi3Config, {"num_key_value_heads": 4, "intermediate_size": 256}),
    "qwen2": (Qwen2Config, {"intermediate_size": 280}),
    "qwen3": (Qwen3Config, {"head_dim": 24}),
    "guard": (Qwen3Config, {"head_dim": 24, "num_hidden_layers": 4}),
}
FAMILIES = tuple(name for name in ARCHITECTURES if name != "guard")


def new_model(family: str, vocabulary_size: int, **shape) -> PreTrainedModel:
    """Return the model of a family, or of the guard, with random float32 weights, drawn from torch's generator."""
    config_class, changes = ARCHITECTURES[family]
    config = config_class(**COMMON_SHAPE | changes | {"vocab_size": vocabulary_size, "dtype": "float32"} | shape)
    model = AutoModelForCausalLM.from_config(config).float()
    model.generation_config.update(do_sample=False, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    return model
