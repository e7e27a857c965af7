"""Image sources: paths, labels, groups and splits."""
