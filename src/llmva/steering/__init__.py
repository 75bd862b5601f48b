"""Methods behind one protocol; a new one is a file here and a line in `METHODS`."""

from llmva.steering.base import SteeringMethod, Tuned, tune
from llmva.steering.llm_va import LlmVa
from llmva.steering.original import Original
from llmva.steering.vector_steer import VectorSteer

METHODS = {method.name: method for method in (Original, VectorSteer, LlmVa)}

__all__ = ["METHODS", "LlmVa", "Original", "SteeringMethod", "Tuned", "VectorSteer", "tune"]
