"""The parameters of a model that has no parameter file: from a command's options and the model's configuration."""

import argparse
import json
import re
from pathlib import Path

from llmva import paths
from llmva.errors import InputError
from llmva.organisms.build import write_data_sets
from llmva.params import StudyParams
from llmva.provenance import digest
from llmva.sources import locate
from llmva.store import run_stage

DEPTH_SHARES = (0.5, 0.75, 1.0)


def build_params(options: argparse.Namespace) -> StudyParams:
    """Return the parameters of a model that has no parameter file of its own."""
    model = str(Path(options.model).absolute()) if Path(options.model).is_dir() else options.model
    location, _ = locate(model)
    config = _read_config(location) if isinstance(location, Path) else {}
    # Two folders of one name are two studies: the digest keeps their runs apart.
    slug = f"align-{re.sub('[^A-Za-z0-9]+', '-', Path(model).name)[:40]}-{digest([model, options.data])[:8]}"
    candidates = _l_select_candidates(2 * config.get("num_hidden_layers", 32))
    values = {
        "slug": slug,
        "model": model,
        "judge": options.judge,
        "data": str(Path(options.data).absolute()) if options.data else str(_generated_data(slug, options.seed)),
        "seed": options.seed,
        "threads": options.threads,
        "dtype": options.dtype or config.get("dtype") or config.get("torch_dtype") or "float32",
        "generation": {"batch_size": options.batch_size, "max_new_tokens": options.max_new_tokens},
        "candidates": options.candidates,
        "pool_size": min(500, options.candidates),
        "error_share": {
            "seval_attack": 0.8,
            "seval_risk": 0.3,
            "orfuzzset": 0.7,
            "nq": 0.1,
            "benign": 0.5,
            "toxic": 0.5,
        },
        "transfer_size": 100,
        "sample_per_dataset": 128,
        "svm": {"solver": "newton", "penalty": 1.0},
        "selection": "strict",
        "iterations": options.iterations,
        "probe": {"l_select": candidates, "iterations": min(10, options.iterations)},
        "ridge": {"neutral_weight": 1.0, "damping": 1e-3, "iterations": min(12, options.iterations)},
        "ablations": {"iterations": options.iterations, "degrees": [0, 30, 60, 90], "draws": 1, "l_select": candidates},
        "null_draws": 50,
    }
    return StudyParams.checked(values, "align")


def _generated_data(slug: str, seed: int) -> Path:
    folder = paths.RUNS / slug / "data"
    return run_stage(folder, lambda place: write_data_sets(place, seed), parameters={"seed": seed}).folder


def _read_config(folder: Path) -> dict:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{folder}/config.json: missing or not readable as JSON; restore it") from None
    return {**config, **config.get("text_config", {})}


def _l_select_candidates(sublayers: int) -> list[int]:
    return sorted({max(1, round(share * sublayers)) for share in DEPTH_SHARES})
