"""Distil a BERT teacher into a student with fewer layers and efficient attention, and record what was lost.

accelerate launch pipelines/distill.py --config configs/demo.yaml
accelerate launch pipelines/distill.py --config configs/sst2.yaml --student.num_layers 6
accelerate launch pipelines/distill.py --config configs/sst2.yaml     (again: resumes, or says that it is finished)
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is this file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.check_config import check_config
from distill.console import run
from distill.read_config import parse_config


def main() -> None:
    """Run every phase that is not finished yet: teacher, stages, baseline, comparison."""
    config = parse_config()
    # Here and not above: `--help` and a misspelt key should not wait for torch.
    from distill.launch import make_accelerator
    from distill.run_folder import find_run_folder
    from pipelines.comparison import compare_and_report
    from pipelines.phases import distil_stages, open_run, prepare_lesson, train_baseline
    from students import ATTENTIONS

    check_config(config, ATTENTIONS)
    folder = find_run_folder(config)
    accelerator = make_accelerator(config)
    if folder.finished:
        accelerator.print(f"{folder.path} is finished; its report is {folder.path / 'report.html'}")
        return
    work = open_run(config, accelerator, folder)
    lesson = prepare_lesson(work)
    student = distil_stages(work, lesson)
    baseline = train_baseline(work, lesson)
    compare_and_report(work, lesson, student, baseline)
    accelerator.end_training()


if __name__ == "__main__":
    run(main)
