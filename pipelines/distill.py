"""Distil a BERT teacher into a student with fewer layers and efficient attention, and record what was lost.

accelerate launch pipelines/distill.py --config configs/demo.yaml
accelerate launch pipelines/distill.py --config configs/sst2.yaml --student.num_layers 6
accelerate launch pipelines/distill.py --config configs/sst2.yaml     (again: resumes, or says that it is finished)
accelerate launch pipelines/distill.py --config configs/sst2.yaml --check     (looks for what would go wrong)
"""

import sys
from functools import partial
from pathlib import Path

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is this file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.utils.cli import run
from pipelines.run.command import prepare_command


def main() -> int:
    """Run every phase that is not finished yet: teacher, stages, baseline, comparison."""
    opened, exit_code = prepare_command(__doc__)
    if opened is None:
        return exit_code
    from pipelines.run.phases import run_phases

    run_phases(*opened)
    return 0


command = partial(run, main)
"""Entry point of the console script."""

if __name__ == "__main__":
    command()
