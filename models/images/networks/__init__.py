"""Pretrained backbones and the heads on them."""
