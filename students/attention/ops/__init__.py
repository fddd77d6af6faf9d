"""What attention mechanisms share, and the slow references that tests compare them with."""
