"""`python -m llmva.organisms [slug ...]`: build the organisms that are missing, the guard first."""

import argparse

from llmva.errors import command
from llmva.organisms.build import GUARD, build_organism, parse_slug
from llmva.organisms.families import FAMILIES

DEFAULT_SLUGS = tuple(f"tiny-{family}" for family in FAMILIES)


@command
def main() -> None:
    """Build the guard and the organisms named on the command line, or all six families."""
    parser = argparse.ArgumentParser(prog="python -m llmva.organisms", description=__doc__)
    parser.add_argument("slugs", nargs="*", metavar="slug", help="tiny-<family>, tiny-<family>-s<seed>, tiny-guard")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args()
    slugs = [slug for slug in arguments.slugs or DEFAULT_SLUGS if slug != GUARD]
    for slug in slugs:
        parse_slug(slug)
    for slug in (GUARD, *slugs):
        print(build_organism(slug, progress=not arguments.quiet))


if __name__ == "__main__":
    main()
