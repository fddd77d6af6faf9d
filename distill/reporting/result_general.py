"""What students of three layers lose stage by stage: Performer, other maps, and those that `fit` takes."""

from typing import Any

from distill.evaluation.record import model_metrics
from distill.reporting.result_records import METRIC_NAMES, TASK_NAMES, Records, interval, markdown_table, percent

RUNS = {
    "stsb-recipe": "Performer",
    "stsb-started": "Performer, from raw text",
    "stsb-fitted": "`fit`: ABC",
    "mrpc-luna_kernel": "`luna_kernel`",
    "cola-luna_kernel": "`luna_kernel`",
}
"""Record to its student."""
STAGES = {"depth_logits": "softmax student", "transfer": "after `transfer`", "layers": "after `layers`"}


def student_stages(records: Records) -> list[str]:
    """One row per run: the teacher's score, the student's after its stages, and what is kept of it in the end."""
    rows = []
    for name, student in RUNS.items():
        run = records.record(f"general/{name}")
        found: dict[str, Any] = {stage.name: stage.metrics for stage in run.stages}
        scores = [percent((found.get(stage) or {}).get(run.main_metric)) for stage in STAGES]
        teacher, end = (percent(model_metrics(run, role).get(run.main_metric)) for role in ("teacher", "student"))
        task = f"{TASK_NAMES[run.task]}, {METRIC_NAMES[run.main_metric]}"
        rows.append([task, student, teacher, *scores, end, interval(run.retention[run.main_metric])])
    return markdown_table(["task", "student", "teacher", *STAGES.values(), "at the end", "kept, % [95 %]"], rows)
