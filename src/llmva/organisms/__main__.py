"""`python -m llmva.organisms [slug ...]`: build the organisms that are missing, as many at once as there are cores."""

import os
from functools import partial

from llmva.core.errors import OneLineParser, command
from llmva.core.parallel import process_pool
from llmva.organisms.build import build_organism, open_tracked
from llmva.organisms.families import FAMILIES, GUARD, parse_slug

DEFAULT_SLUGS = (GUARD, *(f"tiny-{family}" for family in FAMILIES))


@command
def main() -> None:
    """Build the organisms named on the command line, or the guard and all six families."""
    parser = OneLineParser(prog="python -m llmva organisms", description=__doc__)
    parser.add_argument(
        "slugs",
        nargs="*",
        metavar="slug",
        help="tiny-<family>, persona-<family>, smol, each also with -s<seed>; tiny-guard",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="trainings side by side, one thread each")
    parser.add_argument(
        "--retrain", action="store_true", help="train tracked ones too, and compare with what is tracked"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args()
    slugs = list(dict.fromkeys(arguments.slugs or DEFAULT_SLUGS))
    for slug in slugs:
        parse_slug(slug)
    build = build_organism
    if arguments.retrain:
        from llmva.organisms.retraining import retrain_organism as build  # Training is slow to import.
    trained = [slug for slug in slugs if arguments.retrain or open_tracked(slug) is None]
    jobs = min(arguments.jobs, len(trained))
    if jobs < 2:
        for slug in slugs:
            print(build(slug, progress=not arguments.quiet))
        return
    print(f"training {len(trained)} models, {jobs} at a time, about 4 minutes each", flush=True)
    with process_pool(jobs) as pool:
        for built in pool.map(partial(build, progress=False), slugs):
            print(built, flush=True)


if __name__ == "__main__":
    main()
