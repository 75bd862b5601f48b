"""The sublayers of a decoder: what writes into its residual stream, and whether it can be edited."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from llmva.core.errors import InputError

# The module that writes a sublayer's output into the residual stream (paper, Appendix B).
WRITERS = {"attention": "o_proj", "mlp": "down_proj"}
KIND_OF_WRITER = {writer: kind for kind, writer in WRITERS.items()}
WRITER_PATH = re.compile(r"(?P<block>.*\.(?P<layer>\d+))\.\w+\.(?P<writer>o_proj|down_proj)$")
# What stands where a dense decoder has its writers, in the words of other architectures.
STAND_INS = {
    "attention": ("o_proj", "out_proj", "c_proj", "attn", "attention", "mixer"),
    "mlp": ("experts", "down_proj", "c_proj", "fc_out", "mlp", "ffn", "feed_forward"),
}


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


def list_sublayers(model: torch.nn.Module) -> tuple[Sublayer, ...]:
    """Return the attention and MLP sublayers of every block that end in a linear `o_proj` or `down_proj`."""
    sublayers = []
    for path, module, match in _writers(model):
        if isinstance(module, torch.nn.Linear):
            kind, layer = KIND_OF_WRITER[match["writer"]], int(match["layer"])
            contribution = _post_norm(model.get_submodule(match["block"]), kind) or module
            sublayers.append(Sublayer(sublayer_name(path), kind, layer, path, module, contribution))
    return tuple(sorted(sublayers, key=lambda sublayer: (sublayer.kind, sublayer.layer)))


def sublayer_name(path: str) -> str | None:
    """Return the name of the sublayer that a module writes, by the module's path; None of any other module."""
    match = WRITER_PATH.match(path)
    return f"{KIND_OF_WRITER[match['writer']]}.{int(match['layer']):02d}" if match else None


def _post_norm(block: torch.nn.Module, kind: str) -> torch.nn.Module | None:
    # Only a block with a norm before and another one after its MLP puts norms on what its sublayers write;
    # elsewhere `post_attention_layernorm` is the norm in front of the MLP.
    if not hasattr(block, "post_feedforward_layernorm"):
        return None
    return block.post_attention_layernorm if kind == "attention" else block.post_feedforward_layernorm


def list_blocks(model: torch.nn.Module) -> tuple[torch.nn.Module, ...]:
    """Return the decoder blocks that hold the sublayers, in order."""
    paths = dict.fromkeys(match["block"] for _, _, match in _writers(model))
    return tuple(model.get_submodule(path) for path in paths)


def _writers(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module, re.Match]]:
    """Yield path, module and matched path of what is named as a writer, in the language model alone.

    The towers of a multimodal model, for pictures or sound, may have blocks of the same names.
    """
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    inside = set(map(id, decoder.modules()))
    for path, module in model.named_modules():
        if id(module) in inside and (match := WRITER_PATH.match(path)):
            yield path, module, match


def require_dense(model: torch.nn.Module, source: str) -> None:
    """Raise an `InputError` unless every block has one linear `o_proj` and one linear `down_proj`.

    The line names the first module that stands in their place: experts, a fused or a quantised layer.
    """
    present = {(sublayer.layer, sublayer.kind) for sublayer in list_sublayers(model)}
    layers = range(model.config.get_text_config().num_hidden_layers)
    missing = [(layer, kind) for layer in layers for kind in WRITERS if (layer, kind) not in present]
    if not missing and present:
        return
    layer, kind = missing[0] if missing else (0, "attention")
    name, module = _stand_in(model, layer, kind)
    raise InputError(
        f"{source}: layer {layer} has no linear {WRITERS[kind]} to edit, but {name} ({type(module).__name__}); "
        "use a dense, unquantised decoder"
    )


def _stand_in(model: torch.nn.Module, layer: int, kind: str) -> tuple[str, torch.nn.Module]:
    """Return the module that does what a missing writer would do, as far as names tell."""
    inside = [(name, module) for name, module in model.named_modules() if f".{layer}." in f".{name}."]
    for word in STAND_INS[kind]:
        for name, module in inside:
            if word in name.partition(f".{layer}.")[2]:
                return name, module
    return inside[0] if inside else ("", model)
