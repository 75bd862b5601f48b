"""Load a chat model, list its sublayers, encode chats: the same way for organisms and real models."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from llmva.errors import InputError
from llmva.paths import anchored
from llmva.provenance import digest, file_digest
from llmva.store import MANIFEST, is_whole, read_manifest

LARGE_FILE = 256 * 2**20

# The module that writes a sublayer's output into the residual stream (paper, Appendix B).
WRITERS = {"attention": "o_proj", "mlp": "down_proj"}
WRITER_NAME = re.compile(r"(?P<block>.*\.(?P<layer>\d+))\.(?P<parent>\w+)\.(?P<writer>o_proj|down_proj)$")


@dataclass(frozen=True)
class Sublayer:
    """One attention or MLP sublayer.

    Attributes
    ----------
    name : str
        The kind and the layer, as in `mlp.03`.
    path : str
        The module's name in the model, as in `model.layers.3.mlp.down_proj`.
    module : Linear
        `o_proj` or `down_proj`, which an edit changes.
    contribution : Module
        Whose output is added to the residual stream: `module`, or the norm that follows it in Gemma-2.
    """

    name: str
    kind: str
    layer: int
    path: str
    module: torch.nn.Linear
    contribution: torch.nn.Module


@dataclass(frozen=True)
class ChatModel:
    """A loaded model with its tokenizer.

    Attributes
    ----------
    source : str
        What it was loaded from: a folder, or a hub id with its revision.
    """

    source: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def sublayers(self) -> tuple[Sublayer, ...]:
        """All sublayers, attention 0 … L-1, then MLP 0 … L-1."""
        return list_sublayers(self.model)

    @cached_property
    def blocks(self) -> tuple[torch.nn.Module, ...]:
        """The decoder blocks, first to last."""
        return list_blocks(self.model)

    @property
    def writers(self) -> dict[str, torch.nn.Linear]:
        """The editable module of each sublayer, by the sublayer's name."""
        return {sublayer.name: sublayer.module for sublayer in self.sublayers}


def load_model(source: str, *, dtype: str = "float32", device: str | None = None) -> ChatModel:
    """Load a checkpoint folder or a hub model for inference.

    Parameters
    ----------
    source : str
        A folder (relative to the repository's root, or absolute), or a hub id and a revision as in
        `owner/name@revision`: a study names exact weights.
    dtype : str
        Of the weights, as in `StudyParams`.
    device : str, optional
        Torch device; the GPU when there is one, else the CPU.

    Raises
    ------
    InputError
        No weights, no chat template, non-finite weights, or no `o_proj` / `down_proj` to edit.
    """
    location, options = locate(source)
    try:
        config = AutoConfig.from_pretrained(location, **options)
        tokenizer = AutoTokenizer.from_pretrained(location, padding_side="left", **options)
        model = _load_weights(location, config, dtype, options)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(f"{source}: cannot be loaded ({_first_line(error)}); mend the checkpoint folder") from None
    _require_chat_template(tokenizer, source)
    _require_finite(model, source)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    loaded = ChatModel(source, model.to(device).eval(), tokenizer)
    if not loaded.sublayers:
        raise InputError(f"{source}: no o_proj or down_proj linear layers to edit; use a dense decoder-only model")
    return loaded


def locate(source: str) -> tuple[Path | str, dict]:
    """Return a checkpoint folder, or a hub id with the options that pin its revision."""
    folder = anchored(source)
    if folder.is_dir():
        _require_weights(folder)
        return folder, {}
    if Path(source).is_absolute() or source.startswith((".", "runs/")):
        raise InputError(f"{source}: no such model folder; `make organisms` builds the tiny ones")
    name, _, revision = source.partition("@")
    if not revision:
        raise InputError(f"{source}: no such folder, and a hub id needs a pinned revision; write {source}@<revision>")
    return name, {"revision": revision}


def local_folder(source: str) -> Path:
    """Return the folder with a model's files: the folder itself, or where the hub's files were fetched to.

    Raises
    ------
    InputError
        When nothing was fetched yet: loading the model does.
    """
    location, options = locate(source)
    if isinstance(location, Path):
        return location
    try:
        return Path(snapshot_download(location, local_files_only=True, **options))
    except (OSError, ValueError):
        raise InputError(f"{source}: its files are not on this machine; load the model once, with a network") from None


def checkpoint_key(source: str) -> str:
    """Return what identifies a model's weights in a stage's key, without loading them.

    A hub id with its revision, or the digest of a folder's files; large files count by size and time.
    """
    folder = anchored(source)
    if not folder.is_dir():
        return source
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
    return digest([[path.name, _file_key(path)] for path in files])


def list_sublayers(model: torch.nn.Module) -> tuple[Sublayer, ...]:
    """Return the attention and MLP sublayers of every block that end in a linear `o_proj` or `down_proj`."""
    found = []
    for name, module in model.named_modules():
        match = WRITER_NAME.match(name)
        if match and isinstance(module, torch.nn.Linear):
            kind = next(kind for kind, writer in WRITERS.items() if writer == match["writer"])
            layer = int(match["layer"])
            contribution = _post_norm(model.get_submodule(match["block"]), kind) or module
            found.append(Sublayer(f"{kind}.{layer:02d}", kind, layer, name, module, contribution))
    return tuple(sorted(found, key=lambda sublayer: (sublayer.kind, sublayer.layer)))


def _post_norm(block: torch.nn.Module, kind: str) -> torch.nn.Module | None:
    # Only a block with a norm before and another one after its MLP puts norms on what its sublayers write;
    # elsewhere `post_attention_layernorm` is the norm in front of the MLP.
    if not hasattr(block, "post_feedforward_layernorm"):
        return None
    return block.post_attention_layernorm if kind == "attention" else block.post_feedforward_layernorm


def list_blocks(model: torch.nn.Module) -> tuple[torch.nn.Module, ...]:
    """Return the decoder blocks that hold the sublayers, in order."""
    names = {match["block"]: None for name, _ in model.named_modules() if (match := WRITER_NAME.match(name))}
    return tuple(model.get_submodule(name) for name in names)


def encode_chats(tokenizer: PreTrainedTokenizerBase, chats: Sequence[list[dict]]) -> list[list[int]]:
    """Return each chat's token ids, generation prompt included.

    The template writes the special tokens; the tokenizer adds none, so there is no double BOS.
    Every generation, capture and judgement goes through here.
    """
    texts = [
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=False)
        for chat in chats
    ]
    return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []


def user_chats(prompts: Sequence[str]) -> list[list[dict]]:
    """Return one single-turn chat per prompt, without a system prompt."""
    return [[{"role": "user", "content": prompt}] for prompt in prompts]


def _require_weights(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json; name a checkpoint folder as save_pretrained writes it")
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"{folder}: no weights (*.safetensors); save the model with safe serialisation")
    if read_manifest(folder) is not None and not is_whole(folder):
        raise InputError(f"{folder}: a file is not as its manifest says; `make organisms` builds the folder again")


def _load_weights(location, config, dtype: str, options: dict) -> PreTrainedModel:
    if getattr(config, "attn_logit_softcapping", None):
        # The fused attention kernels leave out Gemma-2's soft-capping.
        options = {**options, "attn_implementation": "eager"}
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            location, dtype=getattr(torch, dtype), output_loading_info=True, **options
        )
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
    if found["missing_keys"]:
        # transformers would go on with random numbers in their place.
        raise ValueError(f"weights missing: {', '.join(sorted(found['missing_keys'])[:3])}")
    return model


def _require_chat_template(tokenizer, source: str) -> None:
    if not tokenizer.chat_template:
        raise InputError(f"{source}: the tokenizer has no chat template; add chat_template.jinja to the folder")


def _require_finite(model, source: str) -> None:
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise InputError(f"{source}: {name} holds NaN or infinite weights; restore the checkpoint")


def _file_key(path: Path) -> str:
    status = path.stat()
    return file_digest(path) if status.st_size < LARGE_FILE else f"{status.st_size}:{status.st_mtime_ns}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
