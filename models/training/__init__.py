"""The recipe's machinery, the same for images and tables: loop, schedules, layer groups, finder, checkpoints."""
