"""The commands of `unfreeze`: their flags, what they run and what they print."""
