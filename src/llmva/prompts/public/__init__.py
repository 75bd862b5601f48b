"""Public data sets in their real formats: where they come from, how a row is read, and the folder that studies read."""
