"""Examples of a task: read, checked, split, tokenised and batched."""
