"""Tables from `results/` alone: each a module, all of them listed and written in `build`."""

from llmva.paper.tables.build import TABLES, build_table

__all__ = ["TABLES", "build_table"]
