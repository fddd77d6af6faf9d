"""The phases of a run, in their order."""

from distill.training.accelerator import end_training
from pipelines.run.attention_fit import find_attention
from pipelines.run.baseline import train_baseline
from pipelines.run.context import DistillationSetup, RunContext, open_run_folder
from pipelines.run.copies_choice import choose_copies
from pipelines.run.publish import publish
from pipelines.run.search import find_shape, keep_search
from pipelines.run.stages import run_stages
from pipelines.run.teacher import finetune_teacher
from pipelines.run.text import run_text_phases


def run_phases(context: RunContext, setup: DistillationSetup) -> None:
    """Go through every phase that is not finished yet and push the student.

    They are teacher, search for a shape, for mechanisms or for copies, stages, baseline and comparison.
    """
    if context.task.language_model is not None:
        run_text_phases(context, setup)
        return
    with open_run_folder(context):
        keep_search(context, setup.search)
        setup = finetune_teacher(context, setup)
        context, setup = find_shape(context, setup)
        context, setup = find_attention(context, setup)
        context, setup = choose_copies(context, setup)
        student = run_stages(context, setup)
        baseline = train_baseline(context, setup)
        # Here and not above: matplotlib, pandas and scipy's statistics would take time and memory from the first step.
        from pipelines.run.comparison import compare_and_report

        compare_and_report(context, setup, student, baseline)
        if context.run.accelerator.is_main_process:
            publish(context.config, context.folder)
    end_training(context.run.accelerator)
