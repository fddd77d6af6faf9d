"""The teacher: loading it, checking it, and computing its outputs once."""
