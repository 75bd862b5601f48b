"""How much larger a batch may be on a GPU, by what the last one took of its memory."""

import torch

# Of what is free, since a batch of other lengths may need more than the one that was measured.
SHARE_TO_FILL = 0.7
# What torch's error says where the CPU has no memory left.
CPU_ALLOCATOR = "DefaultCPUAllocator"


class Headroom:
    """Watches the memory of GPUs around batches: `start` before each, `fits_twice` after it."""

    def __init__(self, devices: set[torch.device]) -> None:
        self._before = dict.fromkeys(devices, 0)

    def start(self) -> None:
        """Measure from here."""
        for device in self._before:
            torch.cuda.reset_peak_memory_stats(device)
            self._before[device] = torch.cuda.memory_allocated(device)

    def fits_twice(self) -> bool:
        """Tell whether a batch of twice the size would fit, if it took twice what the last one took at most."""
        return all(2 * self._taken(device) < SHARE_TO_FILL * _free(device) for device in self._before)

    def _taken(self, device: torch.device) -> int:
        return torch.cuda.max_memory_allocated(device) - self._before[device]


def _free(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    # Torch keeps what it has freed.
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def headroom_of(model: torch.nn.Module) -> Headroom | None:
    """Return the headroom of the GPUs that a model is on.

    None where one of it is on a CPU, whose batches are no faster for being larger, and whose results repeat exactly.
    """
    devices = {weight.device for weight in model.parameters()}
    return Headroom(devices) if devices and all(device.type == "cuda" for device in devices) else None
