"""The study of run-time steering of one model: what notebook 12 calls."""
