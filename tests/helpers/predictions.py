"""Labels, and what a good and a worse model predict."""

import numpy as np


def make_predictions(metric: str, num_examples: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels and the predictions of a good and a worse model; scores carry ties."""
    generator = np.random.default_rng(seed)
    if metric in ("pearson", "spearmanr"):
        labels = generator.integers(0, 11, num_examples) / 2
        return (
            labels,
            labels + generator.normal(size=num_examples).round(1),
            labels + generator.normal(scale=2, size=num_examples),
        )
    num_classes = 4 if metric == "macro_f1" else 2
    labels = generator.integers(0, num_classes, num_examples)
    noisy = [
        np.where(generator.random(num_examples) < rate, labels, generator.integers(0, num_classes, num_examples))
        for rate in (0.8, 0.6)
    ]
    return labels, noisy[0], noisy[1]
