"""The names of methods and models in print, and their order."""

import re
from collections.abc import Iterable, Mapping, Sequence

import pandas

from llmva.core.errors import InputError
from llmva.core.params import SEED_SUFFIX
from llmva.core.results import has_seeds, is_organism
from llmva.core.vocabulary import LOOPS, PRINTED_METHODS

MEAN = "mean"
# As many as the Makefile takes.
MAX_SEEDS = 200
NUMBERS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
VARIANT = re.compile(r"(?P<method>.+) \([^()]+\)")


def order_methods(methods: Iterable[str]) -> list[str]:
    """Return methods in the printed order, a variant `X (variant)` right after X, each once.

    Methods that the vocabulary does not name stand behind the last baseline.
    """
    rank = {name: position for position, name in enumerate(PRINTED_METHODS)}
    behind_baselines = rank[LOOPS[0]] - 0.5

    def key(method: str) -> tuple:
        plain = _plain_name(method)
        return rank.get(plain, behind_baselines), plain, method != plain, method

    return sorted(set(methods), key=key)


def is_variant(method: str) -> bool:
    """Tell a further variant of a method, which stands in the CSV only, from the methods that are printed."""
    return _plain_name(method) != method


def printed_rows(frame: pandas.DataFrame) -> pandas.DataFrame:
    """Return the rows that are printed: those of no variant."""
    return frame[~frame["method"].map(is_variant)].reset_index(drop=True)


def name_models(slugs: Iterable[str]) -> dict[str, str]:
    """Return each slug's model: the base name where several seeds of it are there, else the slug itself."""
    bases = {slug: SEED_SUFFIX.sub("", slug) for slug in slugs}
    counts = pandas.Series(list(bases.values())).value_counts()
    return {slug: base if counts[base] > 1 else slug for slug, base in bases.items()}


def add_seeds(slugs: Sequence[str], seeds: int) -> list[str]:
    """Return the slugs, each that has seeds and no seed suffix followed by `-s1` to `-s<seeds - 1>`."""
    if not 1 <= seeds <= MAX_SEEDS:
        raise InputError(f"seeds: is {seeds}; it must be 1 (the organism itself) or more, up to {MAX_SEEDS}")
    seeded = []
    for slug in slugs:
        count = seeds if has_seeds(slug) and not SEED_SUFFIX.search(slug) else 1
        seeded += [slug, *(f"{slug}-s{seed}" for seed in range(1, count))]
    return list(dict.fromkeys(seeded))


def count_nouns(count: int, noun: str) -> str:
    """Return a number in words, or in digits where it is large, with its noun: `one run`, `six runs`."""
    return f"{NUMBERS[count] if count < len(NUMBERS) else count} {noun}{'s' * (count != 1)}"


def describe_runs(seeds: Mapping[str, int]) -> str:
    """Return what a mean is over, from the number of seeds by model: `three persona organisms with two seeds each`.

    Results of organisms are named as such; those of one model are never called those of several.
    """
    organisms = "persona organism" if all(name.startswith("persona-") for name in seeds) else "organism"
    models = count_nouns(len(seeds), organisms if all(map(is_organism, seeds)) else "model")
    fewest, most = min(seeds.values()), max(seeds.values())
    if most == 1:
        return models if len(seeds) > 1 else f"one run of {models}"
    if fewest < most:
        return f"{models}, {count_nouns(sum(seeds.values()), 'run')} in all"
    seeds_of_each = count_nouns(most, "seed")
    return f"{models} with {seeds_of_each} each" if len(seeds) > 1 else f"{seeds_of_each} of {models}"


def count_seeds(slugs: Iterable[str]) -> dict[str, int]:
    """Return how many of the slugs are seeds of each model, in the order of the slugs."""
    return pandas.Series(name_models(dict.fromkeys(slugs))).value_counts(sort=False).to_dict()


def name_kinds(models: Iterable[str]) -> str:
    """Return how the names of the organisms among some models begin, `persona-…`; nothing where there are none."""
    return " or ".join(sorted({f"{model.partition('-')[0]}-…" for model in models if is_organism(model)}))


def _plain_name(method: str) -> str:
    match = VARIANT.fullmatch(method)
    return method if method in LOOPS or not match else match["method"]
