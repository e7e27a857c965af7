"""Joining, checking, splitting and encoding of tables."""
