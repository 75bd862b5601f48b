"""How large a model is, from its configuration alone: parameters, cache, and what a token costs."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from llmva.errors import InputError

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Shape(BaseModel):
    """A dense decoder with gated MLPs and grouped-query attention.

    Attributes
    ----------
    blocks : int
        L; a block has two sublayers.
    width, inner_width : int
        d of the residual stream, and of the MLP inside.
    heads, key_value_heads, head_width : int
        Of attention.
    vocabulary : int
        Rows of the embedding.
    tied : bool
        Whether the embedding is the output layer too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    blocks: int = Field(gt=0)
    width: int = Field(gt=0)
    heads: int = Field(gt=0)
    key_value_heads: int = Field(gt=0)
    head_width: int = Field(gt=0)
    inner_width: int = Field(gt=0)
    vocabulary: int = Field(gt=0)
    tied: bool

    @property
    def sublayers(self) -> int:
        """2L."""
        return 2 * self.blocks

    @property
    def matrices(self) -> int:
        """Parameters that every token is multiplied with: all matrices but the input embedding."""
        attention = self.width * self.head_width * (2 * self.heads + 2 * self.key_value_heads)
        return self.blocks * (attention + 3 * self.width * self.inner_width) + self.vocabulary * self.width

    @property
    def parameters(self) -> int:
        """All weights; norms and biases, less than a thousandth of them, are left out."""
        return self.matrices + (0 if self.tied else self.vocabulary * self.width)

    def cache_bytes(self, dtype: str) -> int:
        """Return the bytes of keys and values per token."""
        return 2 * self.blocks * self.key_value_heads * self.head_width * BYTES[dtype]


def read_shape(folder: Path) -> Shape:
    """Return the shape of a checkpoint folder, from its `config.json`."""
    from transformers import AutoConfig  # slow to import

    try:
        config = AutoConfig.from_pretrained(folder).get_text_config()
        heads = config.num_attention_heads
        return Shape(
            blocks=config.num_hidden_layers,
            width=config.hidden_size,
            heads=heads,
            key_value_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_width=getattr(config, "head_dim", None) or config.hidden_size // heads,
            inner_width=config.intermediate_size,
            vocabulary=config.vocab_size,
            tied=config.tie_word_embeddings,
        )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{folder}/config.json: no dense decoder's configuration ({reason}); restore it") from None
