"""Table files as data frames."""
