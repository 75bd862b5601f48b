"""Training a tracked organism again from its seed: does this machine get the same bytes?"""

import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from llmva.core import paths
from llmva.core.provenance import processor
from llmva.core.store import Stage, run_stage
from llmva.organisms.build import STAGE_VERSION, open_tracked
from llmva.organisms.checkpoint import parameters_of, train_checkpoint


def retrain_organism(slug: str, progress: bool = True) -> str:
    """Train an organism again and return, in a line, how it compares with the tracked one.

    One that is not tracked yet, or was deleted from `organisms/`, is put there.
    """
    retrained, tracked = _train_organism(slug, progress), open_tracked(slug)
    if tracked is None:
        _track(retrained.folder, paths.ORGANISMS / slug)
        return f"{slug}: trained, and put into organisms/{slug}"
    made_on = tracked.manifest["facts"]["processor"]
    if retrained.manifest["files"] == tracked.manifest["files"]:
        return f"{slug}: the same bytes as organisms/{slug}, which were made on {made_on}"
    share, largest = compare_weights(tracked, retrained)
    return (
        f"{slug}: {share:.1%} of the weights differ from organisms/{slug}, by at most {largest:.2g}; that was made on "
        f"{made_on}, and this is {processor()}"
    )


def _train_organism(slug: str, progress: bool) -> Stage:
    """Return the checkpoint that the seed gives on this machine, `runs/<slug>/retrained`."""
    return run_stage(
        paths.RUNS / slug / "retrained",
        lambda folder: train_checkpoint(folder, slug, progress),
        # Whoever asks again after an update wants to know what this one gives.
        parameters={**parameters_of(slug), "torch": torch.__version__, "processor": processor()},
        version=STAGE_VERSION,
    )


def _track(source: Path, folder: Path) -> None:
    """Copy a checkpoint to its tracked folder, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tracking-") as temporary:
        shutil.copytree(source, Path(temporary) / folder.name).rename(folder)


def compare_weights(tracked: Stage, retrained: Stage) -> tuple[float, float]:
    """Return the share of weights that differ between two checkpoints of one shape, and the largest difference."""
    before, after = (load_file(stage / "model.safetensors") for stage in (tracked, retrained))
    apart = torch.cat([(before[name].float() - after[name].float()).abs().flatten() for name in before])
    return float((apart > 0).float().mean()), float(apart.max())
