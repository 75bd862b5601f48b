"""`python -m llmva.prompts.public OUT [--released FOLDER] [--only SET ...]`: a study's data folder from public sets."""

import argparse

from llmva.core.errors import OneLineParser, command
from llmva.core.paths import user_path
from llmva.prompts.public.build import build_folder
from llmva.prompts.public.catalogue import KNOWN_SETS, PUBLIC_SETS
from llmva.prompts.public.fetching import FOLDER_VARIABLE, local_folder


@command
def main() -> None:
    """Build a data folder and say where each set came from and under which licence."""
    parser = OneLineParser(
        prog="python -m llmva data",
        description=__doc__,
        epilog=_about(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=user_path, help="the folder to make; a parameter file names it as `data`")
    parser.add_argument("--released", type=user_path, metavar="FOLDER", help="LLM-VA's released split files")
    parser.add_argument("--only", nargs="+", default=list(PUBLIC_SETS), metavar="SET", help="build these sets alone")
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


def _about() -> str:
    lines = [
        "Files of your own go before the hub: put them into a folder and write "
        f"`{FOLDER_VARIABLE}=<that folder> make data`.",
        "Sets, and the files that are looked for first in it:",
    ]
    for name, data_set in KNOWN_SETS.items():
        files = (*data_set.files[:1], *data_set.neutral_files[:1])
        apart = "" if name in PUBLIC_SETS else " (only when it is named)"
        lines.append(f"  {name:15} {', '.join(files)}{apart}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
