"""Fine-tuning more than once: every try from a seed of its own, the one that is best on held-out train is kept."""

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

from distill.training.context import TrainingContext
from distill.training.progress import Progress, epoch_score
from distill.training.run_folder import RunFolder, save_model
from teachers.loading import Teacher

KEPT = ("seconds", "checkpoint_seconds", "held_out", "history")
"""What of a finished phase goes into the run folder."""


def kept_of(progress: Progress) -> dict[str, Any]:
    """Return what of a phase goes into the run folder."""
    return {name: getattr(progress, name) for name in KEPT}


def names_of_tries(tries: int) -> list[str]:
    """Return what the tries are called in the run folder; empty where there is but one, which is the teacher."""
    return [f"teacher-{number + 1}" for number in range(tries)] if tries > 1 else []


def best_of_tries(
    run: TrainingContext,
    tries: int,
    teacher: Teacher,
    folder: RunFolder,
    finetune: Callable[[PreTrainedModel, int, str], Progress],
    start_again: Callable[[int], PreTrainedModel],
) -> dict[str, Any]:
    """Fine-tune the teacher in place, several times where that is wanted, and keep the best on held-out train.

    A finished try is not made again by a run that goes on; its model stays in the run folder until the teacher's is.

    Args:
        finetune: trains a model from a seed, in a phase of this name.
        start_again: what another try starts from, of its seed.

    Returns:
        What of the best one goes into the run folder, the seconds of all.
    """
    names = names_of_tries(tries)
    if not names:
        return kept_of(finetune(teacher.model, run.seed, "teacher"))
    results = []
    for number, name in enumerate(names):
        if folder.result(name) is None:
            model = teacher.model if number == 0 else start_again(run.seed + number)
            progress = finetune(model, run.seed + number, name)
            if run.accelerator.is_main_process:
                save_model(model, teacher.tokenizer, folder.model(name))
                folder.finish(name, {"name": name} | kept_of(progress))
            run.accelerator.wait_for_everyone()
        result = folder.result(name)
        assert result is not None
        results.append(result)
        say = (
            f"teacher: try {number + 1} of {tries}, seed {run.seed + number}: {score_of(result):.4f} on held-out train"
        )
        run.accelerator.print(say)
    best = max(range(tries), key=lambda number: score_of(results[number]))
    run.accelerator.print(f"teacher: try {best + 1} is kept")
    weights = type(teacher.model).from_pretrained(folder.checked_model(names[best])).state_dict()
    teacher.model.load_state_dict(weights)
    spent = {name: sum(result[name] for result in results) for name in ("seconds", "checkpoint_seconds")}
    return {name: results[best][name] for name in KEPT} | spent


def score_of(result: dict[str, Any]) -> float:
    """Return the mean of a task's metrics on held-out train after the best epoch, with which a phase ends."""
    return max(epoch_score(metrics) for metrics in result["held_out"])
