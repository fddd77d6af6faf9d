"""The method: configuration, tasks, data, losses, stages, the loop, metrics, statistics and reports."""
