"""A loaded model: where it comes from, its sublayers, and what is read from it."""
