"""LLM-VA: closed-form weight edits that make a chat model's willingness to answer follow its judgement of safety."""

import os

# Torch's waiting threads spin, and slow each other down tenfold as soon as another process wants a core. A short
# spin costs a few per cent on an idle machine, none at all half as much again. It is read when torch is first
# imported, and results are the same bit for bit.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

__version__ = "0.1.0"
