"""Metrics, significance, and the record of a comparison."""
