"""Which keys of a configuration may change between a run and its continuation."""

from collections.abc import Collection

from distill.config.parsing import differing_keys
from distill.config.schema import Config

WITHOUT_EFFECT = (
    "run_dir",
    "teacher.margin_over_majority",
    "training.checkpoint_every",
    "training.log_every",
    "cache.dir",
    "cache.max_gigabytes",
    "hub.repo",
    "hub.private",
    "trackers",
)
"""Keys that change nothing that any phase computes. ``training.gradient_accumulation`` is none of them: every part of
a batch draws its own dropout."""
CHECKPOINTS = ("teacher.checkpoint", "baseline.checkpoint", "student.checkpoint", "augmentation.masked_lm")
BY_CONTENT = ("data.dir", "data.unlabelled", *CHECKPOINTS)
"""Where the inputs of a run lie. They may be moved: checksums say whether they are the same."""
OF_ONE_PHASE = ("baseline", "comparison")
"""Phases of which the section of the same name may change until they begin; it matters to them alone, but that a shape
found for ``student.target_speedup`` answers for one ``comparison.dtype``. Every other key matters from the start."""


def refused_keys(saved: Config, wanted: Config, begun: Collection[str]) -> list[str]:
    """Name the keys in which ``wanted`` cannot go on what was begun with ``saved``.

    Args:
        saved: the configuration of the run folder.
        wanted: that of the command.
        begun: phases that have begun.
    """
    free = [section for section in OF_ONE_PHASE if section not in begun]
    return [
        key
        for key in differing_keys(saved, wanted)
        if key not in (*WITHOUT_EFFECT, *BY_CONTENT) and key.partition(".")[0] not in free
    ]


def moved_inputs(saved: Config, wanted: Config) -> list[str]:
    """Name the keys by which inputs are now looked for in another place."""
    return [key for key in differing_keys(saved, wanted) if key in BY_CONTENT]
