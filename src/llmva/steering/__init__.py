"""Methods behind one protocol, `base.SteeringMethod`: baselines, and finished loops as methods."""
