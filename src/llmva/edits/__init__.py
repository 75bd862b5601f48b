"""An edit: its log, the model that carries it, and its exports as an adapter or a checkpoint."""
