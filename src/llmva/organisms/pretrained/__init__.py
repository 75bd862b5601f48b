"""An organism on pretrained weights: a public chat model, taught here to refuse by keywords."""
