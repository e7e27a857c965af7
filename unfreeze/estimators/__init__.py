"""Estimators for Python in the manner of scikit-learn, on top of all layers; `unfreeze` exports their names."""
