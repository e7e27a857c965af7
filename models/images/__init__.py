"""Images: reading, caching, augmenting, backbones, precomputed activations, evaluation, prediction."""
