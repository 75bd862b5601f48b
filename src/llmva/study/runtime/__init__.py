"""The study of run-time steering of one model: what notebook 12 calls."""

from llmva.study.runtime.learning import learn_boundaries
from llmva.study.runtime.study import RuntimeStudy

__all__ = ["RuntimeStudy", "learn_boundaries"]
