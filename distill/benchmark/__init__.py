"""Speed and memory of models, side by side."""
