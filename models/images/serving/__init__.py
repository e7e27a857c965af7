"""Trained image models in use: predictions, explanations, exports."""
