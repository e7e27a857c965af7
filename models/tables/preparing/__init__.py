"""From tables as they were read to rows that a model takes."""
