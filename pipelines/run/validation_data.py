"""The validation splits that a run was, or would be, compared on, for commands that only compare."""

from collections.abc import Mapping

from distill.config.schema import DataConfig
from distill.data.splits import Examples, load_splits
from distill.tasks import Task


def load_validation(task: Task, data: DataConfig) -> Mapping[str, Examples]:
    """Read the validation splits of a task as a run with these data settings does."""
    splits = load_splits(
        task,
        source=data.dir,
        seed=data.seed,
        max_train_examples=None,
        held_out_fraction=data.held_out_fraction,
        validation_fraction=data.validation_fraction,
    )
    return splits.validation
