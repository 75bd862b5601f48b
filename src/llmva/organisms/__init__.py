"""Model organisms: tiny chat models with planted safety properties, and their guard, trained from a seed."""

import os

# Two threads that spin while waiting slow each other down tenfold as soon as a third process wants a core.
# OpenMP reads this when torch is first imported; results are the same bit for bit.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
