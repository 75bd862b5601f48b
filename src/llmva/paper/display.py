"""What tables and figures share: the results that an item is made from, and the command that makes it."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from llmva.core import paths
from llmva.core.errors import InputError, OneLineParser
from llmva.core.params import known_slugs
from llmva.core.results import is_organism, result_path, world_of

WORLDS = ("real", "organisms", "pretrained")


@dataclass(frozen=True)
class Item:
    """A table or a figure, and the items whose results it is made from: none where it needs no results."""

    sources: tuple[str, ...]

    def with_results(self, slugs: Sequence[str]) -> list[str]:
        """Return the models that have all results that it is made from."""
        return [slug for slug in slugs if all(result_path(slug, source).is_file() for source in self.sources)]

    def is_ready(self, slugs: Sequence[str]) -> bool:
        """Tell whether it can be made: one model's results are enough."""
        return bool(self.with_results(slugs))


class Catalogue(dict[str, Item]):
    """All tables, or all figures, by name.

    Those `apart` are of other models than the rest, so that `all` goes without them. A reader without any results is
    told to make `first`.
    """

    def __init__(self, kind: str, items: dict[str, Item], *, apart: Sequence[str], first: str) -> None:
        super().__init__(items)
        self.kind, self.apart, self.first = kind, apart, first

    def __missing__(self, name: str) -> NoReturn:
        raise InputError(f"{name}: unknown {self.kind}; known are {', '.join(self)} (or all)")

    def read_options(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Return what a command was asked for: `item`, `models`, `seeds`, `present`, `apart`.

        The models are all organisms where none are named.
        """
        parser = OneLineParser(prog=f"python -m llmva {self.kind}s", description=f"Make {self.kind}s from results/.")
        parser.add_argument("item", help=f"{', '.join(self)}, or all: every {self.kind} that has results")
        parser.add_argument("--models", nargs="+", help="slugs; default: the organisms of papermill_params/")
        parser.add_argument("--seeds", type=int, default=1, help="seeds of each organism: itself, -s1, ...; default 1")
        parser.add_argument("--present", action="store_true", help="leave out models without results, and say which")
        apart = {"nargs": "+", "action": "append", "default": [], "metavar": ("ITEM", "SLUG")}
        parser.add_argument("--apart", **apart, help="one more item, with models of its own that have results of it")
        options = parser.parse_args(arguments)
        options.models = options.models or list(filter(is_organism, known_slugs()))
        return options

    def choose(self, options: argparse.Namespace, slugs: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
        """Give the items that were asked for, each with its models, and print which ones it goes without."""
        every = not (options.present or options.item == "all")
        asked = [(name, slugs, every) for name in self.named(options.item, slugs)]
        asked += [(name, own, False) for first, *own in options.apart for name in self.named(first, own)]
        for name, wanted, every in asked:
            present = list(wanted) if every else self[name].with_results(wanted)
            if missing := sorted(set(wanted) - set(present)):
                print(f"{name}: without {', '.join(missing)}, which have no results of it yet")
            yield name, present

    def named(self, name: str, slugs: Sequence[str]) -> list[str]:
        """Return the items that `all` stands for, or one and those that go with it (`figure12_health`)."""
        if name != "all":
            return [name, *(other for other in self if other.startswith(f"{name}_") and self[other].is_ready(slugs))]
        ready = [other for other in self if other not in self.apart and self[other].is_ready(slugs)]
        if not any(self[other].sources for other in ready):
            fix = f"run `make {self.first}` first"
            raise InputError(f"{paths.RESULTS}: no {self.kind}'s results for {', '.join(slugs)}; {fix}")
        return ready


def split_worlds(name: str, slugs: Sequence[str]) -> dict[str, list[str]]:
    """Return the slugs by the name of their files.

    Those of organisms stand apart as `<name>_organisms` where real models are named as well, and those of a pretrained
    model always, as `<name>_smol`.
    """
    real, organisms, pretrained = ([slug for slug in slugs if world_of(slug) == world] for world in WORLDS)
    names = {name: real, f"{name}_organisms": organisms} if real else {name: organisms}
    names |= {f"{name}_{model}": members for model, members in group_pretrained(pretrained).items()}
    return {stem: members for stem, members in names.items() if members}


def group_pretrained(slugs: Sequence[str]) -> dict[str, list[str]]:
    """Return those of a list that are pretrained models, by model: all seeds of one."""
    groups = {}
    for slug in slugs:
        if world_of(slug) == "pretrained":
            groups.setdefault(slug.partition("-")[0], []).append(slug)
    return groups
