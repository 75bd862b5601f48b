"""`llmva.steer`: a direction for a model in memory and pairs of system prompts, by the same stages as `make steer`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path

import numpy
import pandas
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmva.aligned_model.folder import require_free
from llmva.aligned_model.params import read_whole
from llmva.aligned_model.result import Report
from llmva.aligned_model.steering import DIRECTION, require_method, write_steering
from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.provenance import digest
from llmva.core.runtime_params import RuntimeParams
from llmva.core.store import require_writable
from llmva.models.in_memory import evaluating, hold
from llmva.prompts.files import require_texts
from llmva.prompts.threats import PAIR_COLUMNS, PAIRS
from llmva.steering.runtime.saved import read_steering
from llmva.steering.runtime.steering import RuntimeSteering
from llmva.steering.runtime.updates import ALPHAS
from llmva.study.runtime import RuntimeStudy
from llmva.study.runtime.sweep import read_cells, sweep_threat


class Steered:
    """A direction that was found for a model in memory; the model itself is as it was.

    Attributes
    ----------
    study : RuntimeStudy
        Its pairs, model and folders.
    method : str
        "SwFC", "StTP" or "StMP".
    steering : RuntimeSteering
        What is done to the residual stream, and behind which block.
    """

    def __init__(self, study: RuntimeStudy, method: str) -> None:
        self.study, self.method = study, method
        self._stage = write_steering(study, study.params.run_folder / "steering", method)
        self.steering: RuntimeSteering = read_steering(self._stage / DIRECTION, study.chat_model)

    @property
    def cells(self) -> pandas.DataFrame:
        """All layers and strengths that were tried, on validation prompts, controls included."""
        return read_cells(sweep_threat(self.study, PAIRS))

    @contextmanager
    def applied(self) -> Iterator[PreTrainedModel]:
        """Steer the model inside a `with` block, whatever generates with it."""
        with self.steering.applied(self.study.chat_model):
            yield self.study.chat_model.model

    def report(self) -> Report:
        """Return the report, which a notebook shows."""
        return Report(self._stage / "report.html")

    def save(self, folder: str | Path) -> Path:
        """Write the direction, its report and what `make steer` leaves besides.

        Raises
        ------
        InputError
            When the folder holds something else, or cannot be written.
        """
        out = paths.user_path(folder)
        require_free(out, self.study.params, DIRECTION)
        return write_steering(self.study, out, self.method).folder


def steer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: pandas.DataFrame,
    *,
    method: str = "StMP",
    alphas: Sequence[float] | None = None,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    max_new_tokens: int = 128,
) -> Steered:
    """Find a direction that brings back a trait which a malicious system prompt takes (second paper).

    Weights stay as they are. What is computed is kept below `runs/` in the working folder, so that a call that is
    stopped resumes, and a second one takes seconds.

    Parameters
    ----------
    model : PreTrainedModel
        Of transformers.
    tokenizer : PreTrainedTokenizerBase
        With a chat template that takes system prompts.
    pairs : DataFrame
        `prompt`, and the system prompts `aligned` and `malicious`.
    method : str
        "SwFC", "StTP" or "StMP".
    alphas : sequence of float, optional
        Strengths to try; by default the published ones.
    layers : sequence of int, optional
        Blocks to try, counted from 1; by default all, which takes long on a large model.
    seed : int
        Of all samples.
    batch_size : int
        Prompts that are answered at once.
    max_new_tokens : int
        Longest reply.

    Raises
    ------
    InputError
        When model, pairs or an option cannot be used: one line that names it and the fix.
    """
    method = require_method(method)
    if not isinstance(pairs, pandas.DataFrame):
        fix = f"give a DataFrame with {', '.join(PAIR_COLUMNS)}"
        raise InputError(f"pairs: is a {type(pairs).__name__}; {fix}")
    if absent := [name for name in PAIR_COLUMNS if name not in pairs]:
        raise InputError(f"pairs: no column {absent[0]!r}; name the columns {', '.join(PAIR_COLUMNS)}")
    require_texts(pairs, PAIR_COLUMNS, "pairs")
    chosen = [
        list(ALPHAS[method]) if alphas is None else _read_several("alphas", alphas, Real, float),
        [] if layers is None else _read_several("layers", layers, Integral, int),
    ]
    counts = {"seed": seed, "batch_size": batch_size, "max_new_tokens": max_new_tokens}
    seed, batch_size, max_new_tokens = (read_whole(name, value) for name, value in counts.items())
    held, table = hold(model, tokenizer, editable=False), pairs[list(PAIR_COLUMNS)]
    name = held.chat_model.source
    settings = [held.key, table.to_numpy().tolist(), method, seed, batch_size, max_new_tokens, *chosen]
    slug = f"steer-{type(model).__name__}-{digest(settings)[:8]}"
    path = paths.RUNS / slug / f"{PAIRS}.csv"
    params = assemble_params(
        slug=slug, model=name, data=str(path), method=method, alphas=chosen[0], layers=chosen[1] or "all", seed=seed,
        threads=torch.get_num_threads(), dtype=str(model.dtype).removeprefix("torch."), batch_size=batch_size,
        max_new_tokens=max_new_tokens,
    )  # fmt: skip
    require_writable(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    paths.write_texts(path, table)
    study = RuntimeStudy(params, held)
    study.require_fit()
    with evaluating(model):
        return Steered(study, method)


def _read_several(name: str, values: Sequence, kind: type, convert: type) -> list:
    """Return numbers of Python, also of numpy's; or raise an `InputError`."""
    several = isinstance(values, (list, tuple, range, numpy.ndarray)) and len(values)
    if not several or not all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
        raise InputError(f"{name}: is {values!r}; give a list of numbers, or leave it out")
    return [convert(value) for value in values]


def assemble_params(
    *,
    slug: str,
    model: str,
    data: str,
    method: str,
    alphas: list[float],
    layers: str | list[int],
    batch_size: int,
    max_new_tokens: int,
    **values: object,
) -> RuntimeParams:
    """Return the parameters of a search for a direction; the values are `seed`, `threads` and `dtype`."""
    return RuntimeParams.checked(
        {
            "slug": slug,
            "model": model,
            "judge": "likelihood",
            "data": data,
            "generation": {"batch_size": batch_size, "max_new_tokens": max_new_tokens},
            "layers": layers,
            "alphas": {method: alphas},
            "min_coherence": 0.9,
            "max_repetition": 0.05,
            **values,
        },
        "steer",
    )
