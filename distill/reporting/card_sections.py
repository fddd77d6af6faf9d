"""The parts of a model card that are no table: how to use the student, its labels, data, origin and limits."""

import json
from pathlib import Path
from string import Template
from typing import Any

from distill.evaluation.record import Record, model_metrics
from distill.reporting.base_model import UNKNOWN_LICENCE, BaseModel
from distill.reporting.formatting import metric_label, metric_text, percent
from distill.reporting.tables import escape_markdown
from distill.tasks import Task

MAX_LABELS = 30
"""Labels that are listed; of more, the configuration has the list."""
USE = Template("""## Use

```python
from transformers import AutoModelForSequenceClassification, $tokenizer, pipeline

folder = $folder  # the folder of this page
tokenizer = $tokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
answer = pipeline("text-classification", model=model, tokenizer=tokenizer$options)
print(answer($example, truncation=True))
```

`trust_remote_code=True` runs the model's own code, the Python files of this folder, and nothing else; the tokenizer
needs none. Besides transformers and torch nothing has to be installed.""")


def use_section(folder: Path, task: Task | None) -> str:
    """Return an example that loads the student from ``folder`` and prints an answer."""
    pair = task is not None and len(task.text_columns) == 2
    return USE.substitute(
        tokenizer=_read(folder / "tokenizer_config.json").get("tokenizer_class") or "PreTrainedTokenizerFast",
        folder=json.dumps(folder.resolve().name),
        options=', function_to_apply="none"' if task is not None and task.is_regression else "",
        example='{"text": "a text", "text_pair": "its pair"}' if pair else '"a text"',
    )


def labels_section(folder: Path, task: Task | None) -> str:
    """Return what the outputs mean, as the configuration in ``folder`` names them."""
    if task is not None and task.is_regression:
        ends = "" if task.label_range is None else " from {:g} to {:g}".format(*task.label_range)
        return f"## Labels\n\nOne number: the score ({escape_markdown(task.label_column)}){ends}, not clipped."
    named = _read(folder / "config.json").get("id2label") or {}
    names = [str(named[key]) for key in sorted(named, key=int)]
    if not names:
        names = list(task.label_names) if task is not None else []
    listed = "\n".join(f"* {index}: {escape_markdown(name)}" for index, name in enumerate(names[:MAX_LABELS]))
    more = "" if len(names) <= MAX_LABELS else f"\n\n{len(names) - MAX_LABELS} more stand in `config.json`."
    return f"## Labels\n\n{listed}{more}"


def data_section(record: Record, name: str, task: Task | None) -> str:
    """Return what the student was trained and measured on; ``name`` is that of the data."""
    columns = "" if task is None else f" Text: {escape_markdown(', '.join(task.text_columns))}."
    return (
        f"## Data\n\nThe student was distilled on the training split of {escape_markdown(name)}.{columns} All figures "
        f"here are of its {record.split} split, {record.num_examples:,} examples, which it was not trained on."
    )


def base_section(base: BaseModel | None) -> str:
    """Return which model the student comes from, and its licence."""
    if base is None:
        return "## Base model\n\nNone: the teacher was trained from scratch, on the data named above alone."
    licence = f"Licence of the base model: {base.licence or UNKNOWN_LICENCE}."
    if base.taught_by is not None:
        other = base.taught_by
        return (
            f"## Base model\n\n{escape_markdown(base.name)}: the student is made of its layers and reads its tokens. "
            f"{licence}\n\nThe teacher is another model, {escape_markdown(other.name)}, fine-tuned where it was not "
            f"yet. Licence of that one: {other.licence or UNKNOWN_LICENCE}."
        )
    return (
        f"## Base model\n\n{escape_markdown(base.name)}: the teacher is this model, fine-tuned where it was not yet; "
        f"the student is made of the teacher's layers. {licence}"
    )


def limits_section(record: Record, folder: Path) -> str:
    """Return what the student is not for, with what the record knows against it."""
    name, student = record.main_metric, record.models.student
    score = metric_text(name, model_metrics(record, "student").get(name))
    lines = [
        f"Measured on one data set only ({metric_label(name)} {score}); on texts of another kind it may do far worse.",
        "It knows what its teacher knew: mistakes and biases of teacher and base model are its own.",
    ]
    if positions := _read(folder / "config.json").get("max_position_embeddings"):
        lines.append(f"It reads at most {positions:,} tokens; `truncation=True` cuts the rest off.")
    if missing := (record.never_answered or {}).get("student"):
        lines.append(f"It never answers {escape_markdown(', '.join(missing))}.")
    if (error := student.calibration_error) is not None:
        lines.append(f"Its probabilities are off by {percent(error)} on average (expected calibration error).")
    return "## Limits\n\n" + "\n".join(f"* {line}" for line in lines)


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON file of the student's folder, empty where it has none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
