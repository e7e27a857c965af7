"""The recipe's machinery, the same for pictures and tables: loop, schedules, layer groups, finder, checkpoints."""
