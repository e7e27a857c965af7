"""Which images a source has: their paths, labels, groups and splits."""
