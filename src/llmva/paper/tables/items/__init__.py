"""The tables, one module an item."""
