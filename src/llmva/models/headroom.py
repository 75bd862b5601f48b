"""How much larger a batch may be on a GPU, by what the last one took of its memory."""

import torch

# Of what is free, since a batch of other lengths may need more than the one that was measured.
SHARE_TO_FILL = 0.7


class Headroom:
    """Watches the memory of one GPU around batches: `start` before each, `fits_twice` after it."""

    def __init__(self, device: torch.device) -> None:
        self.device, self._before = device, 0

    def start(self) -> None:
        """Measure from here."""
        torch.cuda.reset_peak_memory_stats(self.device)
        self._before = torch.cuda.memory_allocated(self.device)

    def fits_twice(self) -> bool:
        """Tell whether a batch of twice the size would fit, if it took twice what the last one took at most."""
        taken = torch.cuda.max_memory_allocated(self.device) - self._before
        free, _ = torch.cuda.mem_get_info(self.device)
        # Torch keeps what it has freed.
        kept = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return 2 * taken < SHARE_TO_FILL * (free + kept)


def headroom_of(device: torch.device) -> Headroom | None:
    """Return the headroom of a GPU; None of a CPU, whose batches are no faster for being larger, and repeat exactly."""
    return Headroom(device) if device.type == "cuda" else None
