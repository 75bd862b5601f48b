"""What a method gained and lost: rates and F1, intervals and tests, utility, divergence."""
