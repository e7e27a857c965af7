"""The recipe: its steps, the state of a training, and the choice among its models."""
