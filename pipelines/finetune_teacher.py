"""Fine-tune the teacher alone, with the same loop, and leave it in <run_dir>/teacher.

accelerate launch pipelines/finetune_teacher.py --config configs/sst2.yaml --run_dir runs/sst2-teacher
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.check_config import check_config
from distill.console import run
from distill.read_config import parse_config


def main() -> None:
    """Fine-tune, score on validation and check."""
    config = parse_config()
    from distill.launch import make_accelerator
    from distill.run_folder import find_run_folder
    from pipelines.phases import open_run, prepare_lesson
    from students import ATTENTIONS

    check_config(config, ATTENTIONS)
    folder = find_run_folder(config)
    accelerator = make_accelerator(config)
    prepare_lesson(open_run(config, accelerator, folder))
    accelerator.end_training()


if __name__ == "__main__":
    run(main)
