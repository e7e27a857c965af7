"""Metrics, intervals, calibration, comparisons, drift, and results of steps."""
