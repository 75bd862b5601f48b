"""Run all benchmarks on tiny-llama and write `tables/performance.csv`: `python -m llmva.benchmarks`."""

import sys

from llmva.benchmarks import run_benchmarks, write_performance
from llmva.errors import command
from llmva.study import Study

COST = "more than 10 minutes on two cores, with nothing beside it"


@command
def main() -> None:
    """Run them and print the table."""
    print(f"benchmarks: {COST}", file=sys.stderr)
    study = Study.named("tiny-llama")
    table = run_benchmarks(study, study.params.ablations.draws)
    write_performance(table)
    print(table.to_markdown(index=False))


if __name__ == "__main__":
    main()
