"""Methods behind one protocol; a new one is a file here and a line in `METHODS`.

LLM-VA has the same protocol but is not in the registry, since its fitting is the loop of `llmva.method.loop`.
"""

from llmva.steering.alpha_steer import AlphaSteer
from llmva.steering.alpha_steer_plus import AlphaSteerPlus
from llmva.steering.base import SteeringMethod, TrainingData, Tuned, tune
from llmva.steering.cast import Cast
from llmva.steering.fine_tuning import FineTuning
from llmva.steering.llm_va import LlmVa
from llmva.steering.original import Original
from llmva.steering.refusal_ablation import RefusalAblation
from llmva.steering.scans import Scans
from llmva.steering.vector_steer import VectorSteer

METHODS = {
    method.name: method
    for method in (Original, RefusalAblation, VectorSteer, AlphaSteer, AlphaSteerPlus, Scans, Cast, FineTuning)
}

__all__ = ["METHODS", "LlmVa", "Original", "SteeringMethod", "TrainingData", "Tuned", "VectorSteer", "tune"]
