"""The parameters of a model that has no parameter file: from a command's options and the model's configuration."""

import argparse
import re
from numbers import Integral
from pathlib import Path
from typing import get_args

from transformers import PreTrainedConfig

from llmva.core import paths
from llmva.core.errors import InputError, first_line
from llmva.core.params import StudyParams
from llmva.core.provenance import digest
from llmva.core.store import run_stage
from llmva.core.vocabulary import WORD_JUDGES
from llmva.judging.guard import GuardMapping
from llmva.models.configuration import LOADING_ERRORS, read_config
from llmva.models.sources import absolute_source, locate, split_source
from llmva.organisms.build import write_data_sets

DEPTH_SHARES = (0.5, 0.75, 1.0)
# What no option of the command changes.
FIXED = {
    "error_share": {"seval_attack": 0.8, "seval_risk": 0.3, "orfuzzset": 0.7, "nq": 0.1, "benign": 0.5, "toxic": 0.5},
    "transfer_size": 100,
    "sample_per_dataset": 128,
    "svm": {"solver": "newton", "penalty": 1.0},
    "selection": "strict",
    "null_draws": 50,
}
MAPPINGS = get_args(GuardMapping)
RIDGE = {"neutral_weight": 1.0, "damping": 1e-3}
ABLATIONS = {"degrees": [0, 30, 60, 90], "draws": 1}
# Of a command's options: named by their full paths elsewhere, or of its results alone; or in the keys of all stages
# that they determine, so that a longer run finds the iterations of a shorter one.
NOT_OF_THE_STUDY = ("model", "earlier", "judge", "data", "out", "checkpoint", "method", "prefer", "iterations")


def build_params(options: argparse.Namespace, *, write: bool = True) -> StudyParams:
    """Return the parameters of a model that has no parameter file of its own.

    Without data of the user's own, prompts are generated and written, or, without `write`, only named.
    """
    model, judge = (absolute_source(source) for source in (options.model, options.judge))
    data = str(paths.user_path(options.data)) if options.data else ""
    config = _read_config(model)
    require_judge(judge, options.mapping)
    slug = name_study(model, model, judge, data, options)
    data = data or str(_generated_data(slug, options.seed, write))
    return assemble_params(options, slug=slug, model=model, judge=judge, data=data, config=config)


def name_study(model: str, key: str, judge: str, data: str, options: argparse.Namespace) -> str:
    """Return the slug of a model's alignment: its name, and a digest of what tells it from others of that name."""
    name = re.sub("[^A-Za-z0-9]+", "-", Path(split_source(model)[0]).name)[:40]
    return f"align-{name}-{digest([key, judge, data, *_settings(options)])[:8]}"


def assemble_params(
    options: argparse.Namespace, *, slug: str, model: str, judge: str, data: str, config: PreTrainedConfig
) -> StudyParams:
    """Return the parameters of a model's alignment; `config` is that of its language model."""
    candidates = sorted({max(1, round(share * 2 * config.num_hidden_layers)) for share in DEPTH_SHARES})
    values = FIXED | {
        "slug": slug,
        "model": model,
        "judge": judge if options.mapping == "outcome" else {"model": judge, "mapping": options.mapping},
        "data": data,
        "seed": options.seed,
        "threads": options.threads,
        "dtype": options.dtype or str(config.dtype or "float32").removeprefix("torch."),
        "generation": {"batch_size": options.batch_size, "max_new_tokens": options.max_new_tokens},
        "candidates": options.candidates,
        "pool_size": min(500, options.candidates),
        "iterations": options.iterations,
        "probe": {"l_select": candidates, "iterations": min(10, options.iterations)},
        "ridge": RIDGE | {"iterations": min(12, options.iterations), "penalty": options.penalty},
        "ablations": ABLATIONS | {"iterations": options.iterations, "l_select": candidates},
        "thinking": options.thinking,
    }
    return StudyParams.checked(values, "align")


def _settings(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Return what tells studies apart: folders of one name and other settings, but not what is made of the results."""
    said = {key: value for key, value in vars(options).items() if key != "thinking" or value is not None}
    return sorted((key, str(value)) for key, value in said.items() if key not in NOT_OF_THE_STUDY)


def _generated_data(slug: str, seed: int, write: bool) -> Path:
    folder = paths.RUNS / slug / "data"
    if not write:
        return folder
    return run_stage(folder, lambda partial: write_data_sets(partial, seed), parameters={"seed": seed}).folder


def _read_config(model: str) -> PreTrainedConfig:
    location, pinned = locate(model)
    try:
        return read_config(location, pinned).get_text_config()
    except LOADING_ERRORS as error:
        raise InputError(
            f"{model}: config.json: not readable ({first_line(error)}); restore it, or check the network"
        ) from None


def read_whole(name: str, value: int) -> int:
    """Return a whole number of Python, also of one of numpy; or raise an `InputError`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name}: is {value!r}; choose a whole number")
    return int(value)


def read_judge(judge: str | Path) -> str:
    """Return a judge as it is named from any folder; or raise an `InputError`."""
    if not isinstance(judge, str | Path):
        raise InputError(f"judge: is a {type(judge).__name__}; choose {', '.join(WORD_JUDGES)}, or name a guard model")
    return absolute_source(str(judge))


def require_judge(judge: str, mapping: str) -> None:
    """Raise an `InputError` for a judge that is not there: found out now, and not after the model has loaded."""
    if mapping not in MAPPINGS:
        raise InputError(f"mapping: is {mapping!r}; choose {' or '.join(MAPPINGS)}")
    if judge not in WORD_JUDGES:
        try:
            _read_config(judge)
        except InputError as error:
            raise InputError(f"judge: {error}; or leave judge out, for `refusals`") from None
    elif mapping != "outcome":
        raise InputError(f"mapping: {mapping} is a way to read a guard's lines; name a guard as judge")
