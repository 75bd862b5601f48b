"""What a study costs: sizes of models, machines, the plan, and benchmarks."""
