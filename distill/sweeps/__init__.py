"""Many runs: the grid, its summary and the leaderboard."""
