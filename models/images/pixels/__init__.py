"""Decoding, resizing, caching by content, and augmentation of images."""
