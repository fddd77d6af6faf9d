"""Fine-tune the teacher alone, with the same loop, and leave it in <run_dir>/teacher.

accelerate launch pipelines/finetune_teacher.py --config configs/sst2.yaml --run_dir runs/sst2-teacher
"""

import sys
from functools import partial
from pathlib import Path

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.utils.cli import run
from pipelines.run.command import prepare_command


def main() -> int:
    """Fine-tune, score on validation and check."""
    opened, exit_code = prepare_command(__doc__, teacher_alone=True)
    if opened is None:
        return exit_code
    from distill.training.accelerator import end_training
    from pipelines.run.context import open_run_folder
    from pipelines.run.teacher import finetune_teacher

    context, setup = opened
    with open_run_folder(context):
        finetune_teacher(context, setup)
    end_training(context.run.accelerator)
    return 0


command = partial(run, main)
"""Entry point of the console script."""

if __name__ == "__main__":
    command()
