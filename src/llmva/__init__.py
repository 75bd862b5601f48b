"""LLM-VA: closed-form weight edits that make a chat model's willingness to answer follow its judgement of safety."""

import os

if "jobserver" in os.environ.get("MAKEFLAGS", ""):
    # Under `make -j` several processes share the cores, and torch's waiting threads, which spin, would starve
    # the others. Alone, spinning is half as fast again. It takes effect only before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
