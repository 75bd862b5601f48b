"""The parameters of a study of run-time steering: one YAML file per model in `papermill_params/runtime/`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from llmva.core import paths
from llmva.core.errors import InputError
from llmva.core.params import SEED_SUFFIX, SHAPE_FIELDS, Generation, reseed
from llmva.core.paths import PARAMS
from llmva.core.strict import Counts, Name, Share, StrictModel, Threads, require_distinct
from llmva.core.yaml_files import read_yaml

Alpha = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False, strict=False)]
Alphas = Annotated[list[Alpha], Field(min_length=1), AfterValidator(require_distinct)]
RuntimeMethod = Literal["SwFC", "StTP", "StMP"]


class RuntimeParams(StrictModel):
    """Everything that determines a study of run-time steering of one model.

    Attributes
    ----------
    slug, model, seed, threads, dtype, generation
        As in `StudyParams`.
    judge : str
        `words`, `likelihood`, or the local chat model that scores traits; see `llmva.judging`.
    data : str
        Folder with `threats/` and `utility/`; see `llmva.prompts.threats.read_threats`.
    layers : str or list of int
        Which layers are tried, 1 to L, or `all`.
    alphas : dict of str to list of float
        What is tried of each method.
    min_coherence : float
        Of the aligned model's, what an operating point must keep; see `llmva.measures.coherence`.
    max_repetition : float
        By how much the share of repeated 4-grams may exceed the aligned model's.
    """

    slug: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    model: Name
    judge: Name
    data: Name
    seed: Annotated[int, Field(ge=0)]
    threads: Threads
    dtype: Literal["float32", "bfloat16", "float16"]
    generation: Generation
    layers: Literal["all"] | Counts
    alphas: dict[RuntimeMethod, Alphas] = Field(min_length=1)
    min_coherence: Share
    max_repetition: Share

    @property
    def run_folder(self) -> Path:
        """Where this study's stages are."""
        return paths.RUNS / self.slug


def load_runtime_params(slug: str) -> RuntimeParams:
    """Return the parameters of a slug; `persona-llama-s1` uses `persona-llama`'s, with folders of its own."""
    base = slug if _path_of(slug).is_file() else SEED_SUFFIX.sub("", slug)
    path = _path_of(base)
    if not path.is_file():
        known = ", ".join(known_runtime_slugs())
        raise InputError(f"{slug}: no study of run-time steering; known are {known} (or add {path.name})")
    values = {name: value for name, value in read_yaml(path).items() if name not in SHAPE_FIELDS}
    params = RuntimeParams.checked(values, str(path))
    if params.slug != base:
        raise InputError(f"{path}: slug: is {params.slug!r}; write {base!r}, the file's own name")
    return params if slug == base else reseed(params, base, slug)


def load_runtime_shapes(slug: str) -> dict[str, dict]:
    """Return what a parameter file says of the sizes of model and judge; see `llmva.core.params.load_shapes`."""
    path = _path_of(slug if _path_of(slug).is_file() else SEED_SUFFIX.sub("", slug))
    values = read_yaml(path) if path.is_file() else {}
    return {name: value for name, value in values.items() if name in SHAPE_FIELDS}


def is_runtime_slug(slug: str) -> bool:
    """Tell whether a slug is one of run-time steering, with or without a seed."""
    return _path_of(slug).is_file() or _path_of(SEED_SUFFIX.sub("", slug)).is_file()


def known_runtime_slugs() -> list[str]:
    """Return the slugs that have such a parameter file, sorted."""
    return sorted(path.stem for path in (PARAMS / "runtime").glob("*.yaml"))


def _path_of(slug: str) -> Path:
    return PARAMS / "runtime" / f"{slug}.yaml"
