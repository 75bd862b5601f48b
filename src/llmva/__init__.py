"""LLM-VA: closed-form weight edits that make a chat model's willingness to answer follow its judgement of safety."""

import importlib
import os

# Torch's waiting threads spin, and slow each other down tenfold as soon as another process wants a core. A short
# spin costs a few per cent on an idle machine, none at all half as much again. It is read when torch is first
# imported, and results are the same bit for bit.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

__version__ = "0.1.0"

# What a notebook of one's own needs; imported when first asked for, since torch takes seconds.
PUBLIC = {
    "align": "llmva.aligned_model.align",
    "Aligned": "llmva.aligned_model.result",
    "steer": "llmva.aligned_model.steer",
    "Steered": "llmva.aligned_model.steer",
    "EditLog": "llmva.edits.log",
    "TradeOff": "llmva.method.trade_off",
}
__all__ = list(PUBLIC)


def __getattr__(name: str):
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
