"""Where a module's values are: in the module, or on the CPU, where accelerate keeps what does not fit on the GPU."""

from collections.abc import Iterator

import torch
from accelerate.hooks import AlignDevicesHook


def stored_parameters(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a module's own parameters by name: the tensors that hold their values, to be read or changed in place.

    A parameter that is nowhere in memory (offloaded to disk, or never loaded) is returned as the empty one it is.
    """
    return {
        name: _kept_aside(module, name, parameter) if parameter.is_meta else parameter
        for name, parameter in module.named_parameters(recurse=False)
    }


def all_stored_parameters(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the name and the stored tensor of every parameter of a model, each once."""
    seen = set()
    for path, module in model.named_modules():
        for name, tensor in stored_parameters(module).items():
            # Tied weights share their memory, if not always the tensor.
            address = id(tensor) if tensor.is_meta else tensor.data_ptr()
            if address not in seen:
                seen.add(address)
                yield f"{path}.{name}".removeprefix("."), tensor


def read_offloaded(model: torch.nn.Module, path: str) -> torch.Tensor:
    """Return the values of a parameter that is offloaded to disk, by its full name."""
    owner, _, name = path.rpartition(".")
    return next(hook.weights_map[name] for hook in _hooks(model.get_submodule(owner)) if hook.weights_map is not None)


def input_device(model: torch.nn.Module) -> torch.device:
    """Return where a model wants its token ids: with its embeddings, or where those are brought to be used."""
    embeddings = model.get_input_embeddings()
    if not embeddings.weight.is_meta:
        return embeddings.weight.device
    return torch.device(next(hook.execution_device for hook in _hooks(embeddings)))


def _kept_aside(module: torch.nn.Module, name: str, parameter: torch.Tensor) -> torch.Tensor:
    for hook in _hooks(module):
        if hook.weights_map is not None:
            values = getattr(hook.weights_map.dataset, "state_dict", hook.weights_map.dataset)
            return values.get(hook.weights_map.prefix + name, parameter)
    return parameter


def _hooks(module: torch.nn.Module) -> list[AlignDevicesHook]:
    hook = getattr(module, "_hf_hook", None)
    return [each for each in getattr(hook, "hooks", [hook]) if isinstance(each, AlignDevicesHook)]
