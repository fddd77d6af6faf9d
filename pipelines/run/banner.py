"""What a run is about to learn from, printed before anything else."""

from distill.data.columns import found_in_words
from distill.data.token_inspection import inspect_tokens
from distill.data.unlabelled import unlabelled_in_words
from distill.reporting.banner import data_banner
from pipelines.run.context import DistillationSetup, RunContext
from pipelines.run.stage_texts import count_unlabelled

WITHOUT_LABELS = "without labels"


def print_banner(context: RunContext, setup: DistillationSetup) -> None:
    """Print what the run is about to learn from."""
    data = context.config.data
    splits = {"train": setup.train, "held-out train": setup.held_out, **setup.validation}
    if setup.other is not None:
        splits["other tasks"] = setup.other
    found = found_in_words(context.task, data.text_columns, data.label_column)
    notes = [*([] if found is None else [found]), *context.splits.notes]
    unlabelled = count_unlabelled(context, setup)
    if context.unlabelled is not None and setup.unlabelled is not None:
        splits[WITHOUT_LABELS] = setup.unlabelled
        notes += [*context.unlabelled.notes, unlabelled_in_words(context.unlabelled, round(unlabelled.tokens))]
    said, rows = "\n".join(notes) or None, {WITHOUT_LABELS: unlabelled.rows}
    across = setup.other_encoder
    whose = "teacher" if across is None else "student"
    lines = data_banner(context.task, splits, setup.tokenizer, data.max_length, said, rows, whose)
    if across is not None:
        read = {"train": across.train, "held-out train": across.held_out, **across.validation}
        doubts = inspect_tokens(read, setup.source.tokenizer, across.max_length)
        lines += [f"warning: {finding.line}" for finding in doubts]
    context.run.accelerator.print("\n".join(lines))
