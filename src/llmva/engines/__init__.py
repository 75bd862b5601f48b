"""How replies are generated."""
