"""`python -m llmva.data_sets OUT [--released FOLDER] [--only SET ...]`: a study's data folder from public sets."""

import argparse
from pathlib import Path

from llmva.data_sets.build import build_folder
from llmva.data_sets.catalogue import SETS
from llmva.data_sets.fetching import VARIABLE, local_folder
from llmva.errors import command


@command
def main() -> None:
    """Build a data folder and say where each set came from and under which licence."""
    places = "\n".join(f"  {name:15} {data_set.files[0]}" for name, data_set in SETS.items())
    about = f"Files below ${VARIABLE} go before the hub. Sets, and where their files are looked for:\n{places}"
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m llmva.data_sets", description=__doc__, epilog=about, formatter_class=form
    )
    parser.add_argument("out", type=Path, help="the folder to make; a parameter file names it as `data`")
    parser.add_argument("--released", type=Path, metavar="FOLDER", help="LLM-VA's released split files")
    parser.add_argument("--only", nargs="+", default=list(SETS), metavar="SET", help="build these sets alone")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of task rows")
    options = parser.parse_args()
    build_folder(
        options.out,
        folder=local_folder(),
        released=options.released,
        only=options.only,
        seed=options.seed,
        report=lambda line: print(line, flush=True),
    )
    print(f"wrote {options.out}; its manifest.json has origins, digests and licences")


if __name__ == "__main__":
    main()
