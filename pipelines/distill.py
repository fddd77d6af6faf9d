"""Distil a BERT teacher into a student with fewer layers and efficient attention, and record what was lost.

    accelerate launch pipelines/distill.py --config configs/demo.yaml
    accelerate launch pipelines/distill.py --config configs/sst2.yaml --student.num_layers 6
    accelerate launch pipelines/distill.py --config configs/sst2.yaml     (again: resumes, or says that it is finished)
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # a script's own folder comes first on sys.path, where `distill` is this file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from distill.config import Config, parse_config
from distill.console import run as run_script


def main() -> None:
    """Run every phase that is not finished yet: teacher, stages, baseline, comparison."""
    config = parse_config()
    from distill.config import check_config
    from students import ATTENTIONS

    check_config(config, ATTENTIONS)
    distil(config)


def distil(config: Config) -> None:
    """Take a checked configuration to a finished run folder."""
    from distill.batches import tokenize
    from distill.data import load_splits
    from distill.launch import make_accelerator, start_trackers
    from distill.loop import Run
    from distill.run_folder import open_run_folder
    from distill.scoring import validation_metrics
    from distill.tasks import get_task
    from pipelines.phases import distil_stages, train_baseline
    from teachers.checks import check_teacher
    from teachers.load import freeze
    from teachers.prepare import prepare_teacher

    accelerator = make_accelerator(config)
    folder = open_run_folder(config, accelerator.is_main_process)
    if folder.finished:
        accelerator.print(f"{folder.path} is finished: see {folder.path / 'report.html'}; give another --run_dir to run again")
        return
    start_trackers(accelerator, config)

    task = get_task(config.task, config.data)
    splits = load_splits(
        task,
        source=config.data.dir,
        seed=config.data.seed,
        max_train_examples=config.data.max_train_examples,
        held_out_fraction=config.data.held_out_fraction,
    )
    run = Run(accelerator, config.training, config.seed)
    teacher = prepare_teacher(run, config, task, splits, folder)
    freeze(teacher.model)
    validation = {name: tokenize(part, teacher.tokenizer, config.data.max_length) for name, part in splits.validation.items()}
    teacher_logits, metrics = validation_metrics(run, task, teacher.model, validation)
    accelerator.print(f"teacher on validation: {', '.join(f'{name} {100 * value:.1f}' for name, value in metrics.items())}")
    for name, logits in teacher_logits.items():
        check_teacher(task, logits, validation[name].labels, metrics[task.main_metric], config.teacher.margin_over_majority)

    student, stages = distil_stages(run, config, task, teacher, splits, validation, folder)
    baseline = train_baseline(run, config, task, teacher, splits, validation, folder)
    accelerator.end_training()


if __name__ == "__main__":
    run_script(main)
