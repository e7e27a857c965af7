"""Prediction, explanation and export of trained image models."""
