"""Prompts and tasks: read, split, pooled, and the public sets they come from. No torch."""
