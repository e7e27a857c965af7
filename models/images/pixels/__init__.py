"""Decoded images: resized once, cached by content, augmented."""
