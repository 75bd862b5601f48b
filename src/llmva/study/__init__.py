"""A study of one model: its stages, each computed once, and what they leave in `results/`."""

from llmva.study.study import Study

__all__ = ["Study"]
