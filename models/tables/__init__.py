"""Tables: reading, features, encoding and the embedding network."""
