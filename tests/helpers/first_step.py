"""Whether a resumed run has loaded a checkpoint: a run that starts its stage over ends alike, only later."""

import re


def first_step(errors: str, stage: str) -> int:
    """Return the step at which a stage's progress bar begins: 0 where no checkpoint was loaded.

    Args:
        errors: what the run wrote to stderr.
        stage: the bar's name.
    """
    bar = re.search(rf"(?<![\w-]){re.escape(stage)}: [^\r\n]*\| *(\d+)/\d+ \[", errors)
    assert bar is not None, f"there is no progress bar of {stage} in: {errors}"
    return int(bar.group(1))
