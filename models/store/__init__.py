"""Files on disk: paths, checksums, derived files cached by content, model folders."""
