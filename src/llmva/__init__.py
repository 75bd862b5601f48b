"""LLM-VA: closed-form weight edits that make a chat model's willingness to answer follow its judgement of safety."""

import os

# Torch's idle threads would otherwise spin, and a second process on the same cores then runs many times
# slower. It takes effect only before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
