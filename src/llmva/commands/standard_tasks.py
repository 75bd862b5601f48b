"""GLUE and GSM8K of lm-evaluation-harness, before and after: `llmva standard aligned`."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pandas

from llmva.aligned_model.comparison import Comparison, open_aligned
from llmva.core.errors import InputError, OneLineParser, command
from llmva.core.paths import user_path, write_atomically
from llmva.measures.utility import measure_standard_utility

COST = "fetches the public sets; two passes over as many rows of six tasks as MOST says, GSM8K with replies"


def compare_standard_utility(
    comparison: Comparison, tasks: Mapping, *, batch_size: int, most: int | None = None
) -> pandas.DataFrame:
    """Measure the harness's own tasks on a base model and with its adapter; see `measure_standard_utility`.

    Returns
    -------
    DataFrame
        One row per task: task, metric, n, original, aligned, and kept, their ratio (nan where the original has 0).
    """
    scores = {}
    for name in ("original", "aligned"):
        with comparison.speaking(name):
            scores[name] = measure_standard_utility(comparison.chat_model, tasks, batch_size=batch_size, most=most)
    before, after = scores["original"]["value"], scores["aligned"]["value"]
    table = scores["original"][["task", "metric", "n"]]
    return table.assign(original=before, aligned=after, kept=after / before.where(before > 0))


@command
def main(arguments: list[str] | None = None) -> None:
    """Measure what `make align` left; print the table and write it beside that folder."""
    parser = OneLineParser(prog="python -m llmva standard", description=__doc__)
    parser.add_argument("aligned", nargs="?", help="a folder that `make align` made")
    parser.add_argument("--most", type=int, help="rows of each task; default: all")
    options = parser.parse_args(arguments)
    if not options.aligned:
        raise InputError("OUT: not given; write `make standard OUT=<folder that make align made> [MOST=200]`")
    if options.most is not None and options.most < 1:
        raise InputError(f"MOST: is {options.most}; it must be at least 1")
    from llmva.measures.harness import load_standard_tasks  # slow to import

    params, _ = open_aligned(options.aligned)
    print(f"standard tasks of {params.model}: {COST}", file=sys.stderr)
    # Before the model: without a network there are no tasks.
    tasks = load_standard_tasks()
    comparison = Comparison.of(options.aligned)
    table = compare_standard_utility(comparison, tasks, batch_size=params.generation.batch_size, most=options.most)
    path = Path(f"{user_path(options.aligned)}-standard.csv")
    print(table.round(3).to_markdown(index=False))
    write_atomically(path, table.to_csv(index=False, lineterminator="\n"))
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
