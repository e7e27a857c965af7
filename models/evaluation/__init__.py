"""Metrics and what follows from them: intervals, comparisons, drift, results of steps."""
