"""The methods that a study tunes and compares; a new one is a file in `baselines/` and a line here.

LLM-VA has the same protocol but is not in the registry, since its fitting is the loop of `llmva.method.loop`.
"""

import pandas

from llmva.core.vocabulary import PAPER_LOOP
from llmva.steering.baselines.alpha_steer import AlphaSteer
from llmva.steering.baselines.alpha_steer_plus import AlphaSteerPlus
from llmva.steering.baselines.cast import Cast
from llmva.steering.baselines.fine_tuning import FineTuning
from llmva.steering.baselines.refusal_ablation import RefusalAblation
from llmva.steering.baselines.scans import Scans
from llmva.steering.baselines.vector_steer import VectorSteer
from llmva.steering.llm_va import LlmVa
from llmva.steering.original import Original
from llmva.steering.runtime.answer_axis import StMP, StTP, SwFC
from llmva.steering.runtime.two_sided import TwoSided

BASELINES = (RefusalAblation, VectorSteer, AlphaSteer, AlphaSteerPlus, Scans, Cast, FineTuning)
METHODS = {method.name: method for method in (Original, *BASELINES, SwFC, StTP, StMP, TwoSided)}


def describe_methods() -> pandas.DataFrame:
    """Return what each method reads and where it acts, indexed by its name; the loops of LLM-VA are alike in both."""
    kinds = {**METHODS, PAPER_LOOP: LlmVa}
    return pandas.DataFrame({name: {"reads": kind.reads, "acts": kind.acts} for name, kind in kinds.items()}).T
