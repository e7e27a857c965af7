"""PyTorch, pandas and Arrow only: everything needed to train and to predict, nothing that orchestrates or tracks."""
