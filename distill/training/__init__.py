"""One training loop, its schedules, checkpoints, run folder and processes."""
