"""Steering while a model writes: a direction and a boundary, and what is done with tokens on the wrong side of it."""
