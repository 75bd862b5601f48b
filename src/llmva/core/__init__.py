"""What every package stands on: errors, paths, seeds, parameters, cached stages, result files. No torch."""
