"""Model organisms: tiny chat models with planted properties, trained from a seed on a generated corpus."""
