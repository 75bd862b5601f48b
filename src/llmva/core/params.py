"""The parameters of a study: one YAML file per model, checked before anything runs."""

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import Field, ValidationInfo, field_validator, model_validator

from llmva.core import paths
from llmva.core.errors import InputError, command
from llmva.core.strict import Count, Counts, Degrees, Name, Penalty, Share, StrictModel, Threads, Weight
from llmva.core.vocabulary import LABELS, PRETRAINED_SETS, SAFETY_SETS, WORD_JUDGES
from llmva.core.yaml_files import read_yaml

# C of LLM-VA-R, where nothing else is said.
SOFT_PENALTY = 0.1
SEED_SUFFIX = re.compile(r"-s(?P<seed>[0-9]{1,9})$")
DRAW_SUFFIX = re.compile(r"-draw(?P<seed>[0-9]{1,9})$")
FIFTH_SUFFIX, FIFTH = "-fifth", 5
# Facts of the models, for `make plan`; they determine nothing.
SHAPE_FIELDS = ("shape", "judge_shape")


Params = TypeVar("Params", bound=StrictModel)


class Generation(StrictModel):
    """Greedy generation: prompts a batch, and the longest reply in tokens."""

    batch_size: Count
    max_new_tokens: Count


class Guard(StrictModel):
    """A guard model whose lines are read by `mapping`; see `llmva.judging.guard.read_guard_verdict`."""

    model: Name
    mapping: Literal["outcome", "refusal"]

    @field_validator("mapping")
    @classmethod
    def _is_of_a_guard(cls, mapping: str, info: ValidationInfo) -> str:
        if (model := info.data.get("model")) in WORD_JUDGES:
            raise ValueError(f"{model} reads words, and has no lines of a guard to map; write `judge: {model}`")
        return mapping


class Svm(StrictModel):
    """The SVM's solver, and C of Eq. 2."""

    solver: Literal["newton", "liblinear"]
    penalty: Penalty


class Probe(StrictModel):
    """Numbers of edited sublayers tried on validation (larger than 2L counts as 2L), and iterations for each."""

    l_select: Counts
    iterations: Count


class Ridge(StrictModel):
    """LLM-VA-R: lambda, mu (see `llmva.method.ridge_edit`), T for each number of sublayers, and C.

    C is that of SVMs on features of unit length; on organisms 0.1 leaves their margins soft.
    """

    neutral_weight: Weight
    damping: Weight
    iterations: Count
    penalty: Penalty = SOFT_PENALTY


class Ablations(StrictModel):
    """What is varied: T up to `iterations`, the angle D in `degrees` with `draws` each, and L_select."""

    iterations: Count
    degrees: Degrees
    draws: Count
    l_select: Counts


class StudyParams(StrictModel):
    """Everything that determines a study of one model.

    Attributes
    ----------
    slug : str
        Name of the model's parameter file and of its folders; `<name>-s<seed>` is a model of its own.
    model : str
        A checkpoint folder or GGUF file (relative to the root, or absolute), `<hub id>@<revision>`, or a GGUF file of
        a package, `package:<python package>/<file>.gguf`; a GGUF file may have `@sha256:<digest>` behind it.
    judge : str or Guard
        The guard model, likewise, or `phrases` or `refusals` for a judge that reads words. As
        `{model: ..., mapping: refusal}` the guard's word on refusal counts alone; otherwise its `outcome` does, as in
        the paper's code.
    data : str
        Folder with `safety/<dataset>.csv` and `utility/<task>.csv`, or one CSV or JSONL of prompts.
    seed : int
        Seed of the study's own draws (splits, samples, permutations).
    threads : int
        Torch's threads; results are bit-identical only for the same number.
    dtype : str
        The model's weights: float32, bfloat16 or float16.
    generation, svm, probe, ridge, ablations
        See their classes. The best number of sublayers that the probe tries goes on to T. With as many candidates as
        the probe has, LLM-VA-R's iterations come to the `trials` of every other method.
    candidates, pool_size : int
        Prompts answered per set by the original model, and prompts kept, errors first.
    error_share : dict of str to float
        Per set, the largest share of the pool that the original model's errors may fill.
    transfer_size : int
        Prompts of each unseen set.
    sample_per_dataset : int
        Training prompts drawn per set in each iteration.
    selection : str
        What picks the iteration on validation: `strict` F1, the same behind gates on broken replies and on
        divergence (`guarded`), or the paper's loose F1 (`paper`).
    iterations : int
        T of the alignment loop.
    null_draws : int
        Permutations behind the null of the angles.
    thinking : int, optional
        Of a thinking model: the tokens that it may think for before it answers. The loops then read activations behind
        the thinking; without it, and in baselines, they are read before.
    """

    slug: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    model: Name
    judge: Name | Guard
    data: Name
    seed: Annotated[int, Field(ge=0)]
    threads: Threads
    dtype: Literal["float32", "bfloat16", "float16"]
    generation: Generation
    candidates: Annotated[int, Field(ge=10, le=10_000_000)]
    pool_size: Annotated[int, Field(ge=10)]
    error_share: dict[str, Share] = Field(min_length=1)
    transfer_size: Count
    sample_per_dataset: Count
    svm: Svm
    selection: Literal["strict", "guarded", "paper"]
    iterations: Count
    probe: Probe
    ridge: Ridge
    ablations: Ablations
    null_draws: Annotated[int, Field(ge=2)]
    thinking: Count | None = None

    @model_validator(mode="after")
    def _probe_is_shorter(self) -> "StudyParams":
        if self.probe.iterations > self.iterations:
            raise ValueError("probe.iterations: larger than iterations; make it smaller")
        return self

    @model_validator(mode="after")
    def _names_known_sets(self) -> "StudyParams":
        # A file of prompts may name sets of its own, which are known once it is read; a folder may not.
        if not Path(self.data).suffix and not paths.anchored(self.data).is_file():
            self.require_sets(())
        return self

    def require_sets(self, own: Iterable[str]) -> None:
        """Raise a `ValueError` unless each set that has a share of errors is one of the package's or of the data's."""
        known = list(dict.fromkeys((*SAFETY_SETS, *PRETRAINED_SETS, *LABELS, *own)))
        if strange := [name for name in self.error_share if name not in known]:
            raise ValueError(f"error_share.{strange[0]}: no such set of prompts; known are {', '.join(known)}")

    @property
    def trials(self) -> int:
        """How often LLM-VA is measured on validation, which is the most that any other method gets."""
        return 1 + self.iterations + (len(self.probe.l_select) - 1) * self.probe.iterations

    @property
    def written(self) -> int:
        """The most tokens that the model writes for a prompt."""
        return self.generation.max_new_tokens + (self.thinking or 0)

    @property
    def judge_model(self) -> str:
        """The guard model, or one of `WORD_JUDGES`."""
        return self.judge.model if isinstance(self.judge, Guard) else self.judge

    @property
    def judge_mapping(self) -> str:
        """How a guard's lines are read."""
        return self.judge.mapping if isinstance(self.judge, Guard) else "outcome"

    @property
    def run_folder(self) -> Path:
        """Where this study's stages are."""
        return paths.RUNS / self.slug


def load_params(slug: str) -> StudyParams:
    """Return the parameters of a slug; `-s<seed>`, `-draw<seed>` and `-fifth` at its end change those of its file.

    A seed suffix replaces the name in every path below `runs/<name>/`, so that each seed of an
    organism has folders of its own without a file of its own. A draw is a study of the same model with another
    seed of the study: other prompts, another split, other samples. A fifth is a study of the same model with a fifth
    of the iterations, and so of the trials that every method gets.
    """
    base = slug
    if not _path_of(slug).is_file():
        if draw := DRAW_SUFFIX.search(slug):
            drawn = load_params(slug[: draw.start()])
            return drawn.model_copy(update={"slug": slug, "seed": int(draw["seed"])})
        if slug.endswith(FIFTH_SUFFIX):
            return _shortened(load_params(slug.removesuffix(FIFTH_SUFFIX)), slug)
        base = SEED_SUFFIX.sub("", slug)
    path = _path_of(base)
    if not path.is_file():
        raise InputError(f"{slug}: unknown model; known are {', '.join(known_slugs())} (or add {path.name})")
    values = {name: value for name, value in read_yaml(path).items() if name not in SHAPE_FIELDS}
    params = StudyParams.checked(values, str(path))
    if params.slug != base:
        raise InputError(f"{path}: slug: is {params.slug!r}; write {base!r}, the file's own name")
    return params if slug == base else reseed(params, base, slug)


def load_shapes(slug: str) -> dict[str, dict]:
    """Return what a parameter file says of the sizes of model and judge (`shape`, `judge_shape`), where it does."""
    path = _path_of(SEED_SUFFIX.sub("", DRAW_SUFFIX.sub("", slug.removesuffix(FIFTH_SUFFIX))))
    values = read_yaml(path) if path.is_file() else {}
    return {name: value for name, value in values.items() if name in SHAPE_FIELDS}


def known_slugs() -> list[str]:
    """Return the slugs that have a parameter file, sorted."""
    return sorted(path.stem for path in paths.PARAMS.glob("*.yaml"))


def _path_of(slug: str) -> Path:
    return paths.PARAMS / f"{slug}.yaml"


def _shortened(params: StudyParams, slug: str) -> StudyParams:
    shorter = {
        name: part.model_copy(update={"iterations": max(1, part.iterations // FIFTH)})
        for name, part in {"probe": params.probe, "ridge": params.ridge}.items()
    }
    return params.model_copy(update={"slug": slug, "iterations": max(1, params.iterations // FIFTH), **shorter})


def reseed(params: Params, base: str, slug: str) -> Params:
    """Return an organism's parameters with another seed's folders."""
    if not params.model.startswith(f"runs/{base}/"):
        raise InputError(f"{slug}: only organisms have seeds, and {base} is a model of its own; use {base}")
    folder = re.compile(rf"^runs/{re.escape(base)}/")
    moved = {name: folder.sub(f"runs/{slug}/", getattr(params, name)) for name in ("model", "data")}
    return params.model_copy(update={"slug": slug, **moved})


@command
def main() -> None:
    """Check the parameters of the slugs on the command line and print them."""
    for slug in sys.argv[1:]:
        print(yaml.safe_dump(load_params(slug).values, sort_keys=False), end="")


if __name__ == "__main__":
    main()
