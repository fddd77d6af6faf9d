"""What a run has found for itself (shape, mechanisms, copies), read back from its folder into its configuration."""

from pathlib import Path

from distill.config.attention_fit import with_found_attention
from distill.config.copies_choice import with_found_copies
from distill.config.schema import Config
from distill.config.shape_search import with_found_shape


def with_found(config: Config, run_dir: Path | str) -> Config:
    """Return the configuration with everything that its run has found, where it asked for any of it."""
    for read_back in (with_found_shape, with_found_attention, with_found_copies):
        config = read_back(config, run_dir)
    return config
