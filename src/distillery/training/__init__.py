"""The fit loop and what it stands on: device set-up, the training step, checkpoints, progress."""
