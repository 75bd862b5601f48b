"""The paper's tables and figures, from `results/` alone. No torch."""
