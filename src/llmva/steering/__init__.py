"""Methods behind one protocol; a new one is a file here and a line in `METHODS`.

LLM-VA has the same protocol but is not in the registry, since its fitting is the loop of `llmva.alignment`.
"""

from llmva.steering.base import SteeringMethod, Tuned, tune
from llmva.steering.llm_va import LlmVa
from llmva.steering.original import Original
from llmva.steering.vector_steer import VectorSteer

METHODS = {method.name: method for method in (Original, VectorSteer)}

__all__ = ["METHODS", "LlmVa", "Original", "SteeringMethod", "Tuned", "VectorSteer", "tune"]
