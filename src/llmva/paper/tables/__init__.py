"""Tables from `results/` alone: each a module, all of them listed and written in `build`."""

from llmva.paper.names import add_seeds
from llmva.paper.tables.build import APART, TABLES, build_table, main, save_table, with_results

__all__ = ["APART", "TABLES", "add_seeds", "build_table", "main", "save_table", "with_results"]
