"""How large models and studies are: from a configuration parameters, cache and a token's cost; and prompts, counted."""

from dataclasses import dataclass
from pathlib import Path

import pandas
import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from llmva.core.errors import InputError, first_line
from llmva.core.params import StudyParams, load_shapes
from llmva.core.strict import Count, StrictModel
from llmva.core.vocabulary import SAFETY_SETS, SPLITS, TRANSFER_SETS, WORD_JUDGES
from llmva.models.configuration import LOADING_ERRORS, read_config
from llmva.models.gguf_files import find_gguf
from llmva.models.sources import list_shards, local_folder, locate
from llmva.prompts.pools import assign_splits, draw_candidates, read_transfer_sets
from llmva.prompts.public.build import TEST_ROWS
from llmva.prompts.public.catalogue import PUBLIC_SETS
from llmva.prompts.sets import read_candidates, require_two_classes
from llmva.prompts.tasks import read_tasks

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Shape(StrictModel):
    """A dense decoder with gated MLPs and grouped-query attention.

    `blocks` is L; `width` is d of the residual stream, `inner_width` that of the MLP inside; `vocabulary` counts the
    rows of the embedding, which is the output layer too where it is `tied`.
    """

    blocks: Count
    width: Count
    heads: Count
    key_value_heads: Count
    head_width: Count
    inner_width: Count
    vocabulary: Count
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


def random_model(shape: Shape, dtype: str = "float32", device: str = "cpu", **options) -> PreTrainedModel:
    """Return a Llama of this shape with the random weights of seed 0; the options are its configuration's."""
    config = LlamaConfig(
        hidden_size=shape.width,
        intermediate_size=shape.inner_width,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head_width,
        num_hidden_layers=shape.blocks,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        **options,
    )
    torch.manual_seed(0)
    # Built where it runs, and in its own type: eight billion float32 weights would not fit beside another model.
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()


def find_shapes(params: StudyParams) -> tuple[Shape, Shape | None]:
    """Return the shapes of a study's model and its judge, None for one of words: of its file, or read here."""
    known = load_shapes(params.slug)
    model = Shape(**known["shape"]) if "shape" in known else find_shape(params.model, "model")
    if params.judge_model in WORD_JUDGES:
        return model, None
    return model, Shape(**known["judge_shape"]) if "judge_shape" in known else find_shape(params.judge_model, "judge")


def find_shape(source: str, field: str) -> Shape:
    """Return the shape of a checkpoint folder, a GGUF file, or a hub model whose configuration was fetched.

    Raises
    ------
    InputError
        When it is not on this machine: names the field and the command that fetches it.
    """
    location, pinned = locate(source)
    if isinstance(location, Path):
        return read_shape(location, **pinned)
    config = try_to_load_from_cache(location, "config.json", revision=pinned["revision"])
    if not isinstance(config, str):
        fetch = f"hf download {location} --revision {pinned['revision']}"
        raise InputError(f"{field}: {source}: not on this machine; fetch it (`{fetch}`) and name the folder")
    return read_shape(Path(config).parent)


def is_here(source: str) -> bool:
    """Tell whether a model's weights are on this machine, all of them, as a folder or fetched from the hub."""
    try:
        return find_gguf(source) is not None or bool(list_shards(local_folder(source)))
    except InputError:
        return False


def read_shape(folder: Path, **options: str) -> Shape:
    """Return the shape of a checkpoint folder, from its `config.json`, or of the GGUF file that the options name."""
    try:
        config = read_config(folder, options).get_text_config()
        # Where layers differ, as in Gemma 4, the costs are those of the common one.
        config.allow_global_per_layer_attribute_access = True
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
    except LOADING_ERRORS as error:
        path = options.get("gguf_file", folder / "config.json")
        raise InputError(f"{path}: no dense decoder's configuration ({first_line(error)}); restore it") from None


@dataclass(frozen=True)
class Amounts:
    """How many prompts a study has: candidates, an iteration's sample, the splits of the pool; rows of unseen sets
    and of tasks; and whether they were counted in the data.
    """

    candidates: int
    sample: int
    train: int
    validation: int
    test: int
    transfer: int
    tasks: int
    counted: bool = False


def expect_amounts(params: StudyParams) -> Amounts:
    """Return what the public sets will give, where they are not there yet."""
    count, held_out = len(SAFETY_SETS), len(SAFETY_SETS) * params.pool_size // 10
    return Amounts(
        candidates=count * params.candidates,
        sample=count * params.sample_per_dataset,
        train=count * params.pool_size * 8 // 10,
        validation=held_out,
        test=held_out,
        # The unseen sets are smaller than the most that is asked for: half of it, by rule of thumb.
        transfer=len(TRANSFER_SETS) * params.transfer_size // 2,
        tasks=TEST_ROWS * sum(data_set.part == "utility" for data_set in PUBLIC_SETS.values()),
    )


def count_amounts(params: StudyParams) -> Amounts:
    """Return what the study's data give; the pool may be smaller, where one kind of prompt is rare."""
    candidates = read_candidates(params.data)
    require_two_classes(candidates, params.data)
    drawn = draw_candidates(candidates, params.candidates, params.seed)
    drawn["split"] = assign_splits(drawn, params.seed)
    quotas = pandas.Series({split: round(share * params.pool_size) for split, share in SPLITS.items()})
    sizes = drawn.groupby(["dataset", "split"]).size().unstack(fill_value=0).reindex(columns=list(SPLITS), fill_value=0)
    pool = sizes.clip(upper=quotas, axis=1)
    return Amounts(
        candidates=len(drawn),
        sample=int(pool["train"].clip(upper=params.sample_per_dataset).sum()),
        **{split: int(pool[split].sum()) for split in SPLITS},
        transfer=len(read_transfer_sets(params.data, params.transfer_size, params.seed)),
        tasks=len(read_tasks(params.data)),
        counted=True,
    )
