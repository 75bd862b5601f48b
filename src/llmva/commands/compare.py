"""Write the notebook of a comparison: `llmva compare aligned`."""

import sys

from llmva.aligned_model.comparison import open_aligned
from llmva.commands.notebooks import prepare_notebook
from llmva.core.errors import InputError, OneLineParser, command
from llmva.core.paths import user_path

NOTEBOOK = "15"


@command
def main(arguments: list[str] | None = None) -> None:
    """Write a copy of the comparison's notebook for an aligned model, and say how to open it."""
    parser = OneLineParser(prog="python -m llmva compare", description=__doc__)
    parser.add_argument("aligned", nargs="?", help="a folder that `make align` made")
    options = parser.parse_args(arguments)
    if not options.aligned:
        raise InputError("OUT: not given; write `make compare OUT=<folder that make align made>`")
    folder = user_path(options.aligned)
    params, _ = open_aligned(folder)
    notebook = prepare_notebook(NOTEBOOK, params, aligned=str(folder))
    print(f"open with: {sys.executable} -m jupyter lab {notebook}")


if __name__ == "__main__":
    main()
