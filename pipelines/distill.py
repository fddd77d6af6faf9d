"""Distil a BERT teacher into a student with fewer layers and efficient attention, and record what was lost.

accelerate launch pipelines/distill.py --config configs/demo.yaml
accelerate launch pipelines/distill.py --config configs/sst2.yaml --student.num_layers 6
accelerate launch pipelines/distill.py --config configs/sst2.yaml     (again: resumes, or says that it is finished)
accelerate launch pipelines/distill.py --config configs/sst2.yaml --check     (looks for what would go wrong)
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is this file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.check_config import check_config
from distill.console import run
from distill.read_config import parse_command


def main() -> int | None:
    """Run every phase that is not finished yet: teacher, stages, baseline, comparison."""
    config, only_check = parse_command()
    # Here and not above: `--help` and a misspelt key should not wait for torch.
    from distill.findings import settle
    from pipelines.comparison import compare_and_report
    from pipelines.phases import distil_stages, teach, train_baseline
    from pipelines.preflight import check_run, open_checked
    from students import STUDENTS

    check_config(config, STUDENTS)
    if only_check:
        return check_run(config)
    opened = open_checked(config, settle)
    if opened is None:
        return None
    work, lesson = opened
    teach(work, lesson)
    student = distil_stages(work, lesson)
    baseline = train_baseline(work, lesson)
    compare_and_report(work, lesson, student, baseline)
    work.run.accelerator.end_training()
    return None


if __name__ == "__main__":
    run(main)
