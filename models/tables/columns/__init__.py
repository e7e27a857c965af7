"""Column roles, formats and encoding."""
