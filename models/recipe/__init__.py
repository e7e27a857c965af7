"""The recipe: its steps, training state and model selection."""
