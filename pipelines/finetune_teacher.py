"""Fine-tune the teacher alone, with the same loop, and leave it in <run_dir>/teacher.

accelerate launch pipelines/finetune_teacher.py --config configs/sst2.yaml --run_dir runs/sst2-teacher
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is a file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.check_config import check_config
from distill.console import run
from distill.read_config import parse_command


def main() -> int | None:
    """Fine-tune, score on validation and check."""
    config, only_check = parse_command()
    from distill.findings import settle
    from pipelines.phases import teach
    from pipelines.preflight import check_run, open_checked
    from students import STUDENTS

    check_config(config, STUDENTS)
    if only_check:
        return check_run(config)
    opened = open_checked(config, settle)
    if opened is None:
        return None
    teach(*opened)
    opened[0].run.accelerator.end_training()
    return None


if __name__ == "__main__":
    run(main)
