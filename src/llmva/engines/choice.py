"""Which engine a judge answers with: `LLMVA_JUDGE_ENGINE` names it."""

import os

from llmva.core.errors import InputError
from llmva.engines import continuous, greedy, hugging_face
from llmva.engines.base import Engine

ENGINES = {"greedy": greedy.respond, "hugging_face": hugging_face.respond, "continuous": continuous.respond}
VARIABLE = "LLMVA_JUDGE_ENGINE"


def judge_engine() -> tuple[str, Engine]:
    """Return the name of the judge's engine and the engine; `greedy` where the environment names none."""
    name = os.environ.get(VARIABLE) or "greedy"
    if name not in ENGINES:
        raise InputError(f"{VARIABLE}: is {name!r}; choose {', '.join(ENGINES)}")
    return name, ENGINES[name]
