"""Tables from `results/` alone: each a module, all of them listed and written in `build`."""

from llmva.paper.tables.build import APART, TABLES, build_table, main, save_table, with_results
from llmva.paper.tables.cells import add_seeds

__all__ = ["APART", "TABLES", "add_seeds", "build_table", "main", "save_table", "with_results"]
