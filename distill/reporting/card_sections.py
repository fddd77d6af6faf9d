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
from distill.utils.files import read_json

MAX_LABELS = 30
"""Labels that are listed; of more, the configuration has the list."""
USE = Template("""## Use

```python
from transformers import AutoModelForSequenceClassification, $tokenizer, pipeline

folder = $folder  # the folder of this page
tokenizer = $tokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder$trust)
answer = pipeline("text-classification", model=model, tokenizer=tokenizer$options)
$show
```

$code Besides transformers and torch nothing has to be installed.""")
OWN_CODE = """`trust_remote_code=True` runs the model's own code, the Python files of this folder, and nothing else;
the tokenizer needs none."""
NO_CODE = (
    """It is a plain `BertForSequenceClassification`, without code of its own: servers of BERT classifiers take it."""
)

SHOW = Template("print(answer($example, truncation=True))")
SHOW_LABELS = Template("""threshold = $threshold  # chosen on held-out train; config.json has it too
scores = answer($example, top_k=None, truncation=True)
print([score["label"] for score in scores if score["score"] >= threshold])""")
HALF = 0.5


def use_section(folder: Path, task: Task | None) -> str:
    """Return an example that loads the student from ``folder`` and prints an answer."""
    pair = task is not None and len(task.text_columns) == 2
    several = task is not None and task.multi_label
    apply = "sigmoid" if several else "none" if task is not None and task.is_regression else ""
    brings_code = _read(folder / "config.json").get("model_type") != "bert"
    return USE.substitute(
        trust=", trust_remote_code=True" if brings_code else "",
        code=OWN_CODE if brings_code else NO_CODE,
        tokenizer=_read(folder / "tokenizer_config.json").get("tokenizer_class") or "PreTrainedTokenizerFast",
        folder=json.dumps(folder.resolve().name),
        options=f', function_to_apply="{apply}"' if apply else "",
        show=(SHOW_LABELS if several else SHOW).substitute(
            example='{"text": "a text", "text_pair": "its pair"}' if pair else '"a text"',
            threshold=_read(folder / "config.json").get("threshold", HALF),
        ),
    )


def export_section(folder: Path, attention: str, parity: float) -> str:
    """Return what a folder is that a student was exported to.

    Args:
        folder: with the configuration.
        attention: the student's, as its record says it.
        parity: largest difference of a logit from the student.
    """
    positions = _read(folder / "config.json").get("max_position_embeddings") or 0
    return (
        f"## Export\n\nWritten by `export.py --format bert`. The student's attention is {escape_markdown(attention)}, "
        f"and the same as BERT's in all texts that this folder reads, up to {positions:,} tokens. On the "
        f"validation texts its logits are within {parity:.1e} of the student's."
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
    several = "\n\nA text may have several of them, or none." if task is not None and task.multi_label else ""
    return f"## Labels\n\n{listed}{more}{several}"


def data_section(record: Record, name: str, task: Task | None) -> str:
    """Return what the student was trained and measured on; ``name`` is that of the data."""
    columns = "" if task is None else f" Text: {escape_markdown(', '.join(task.text_columns))}."
    read = record.unlabelled
    more = "" if read is None else f" and on {read.texts:,} texts without labels, which the teacher labelled"
    return (
        f"## Data\n\nThe student was distilled on the training split of {escape_markdown(name)}{more}.{columns} All "
        f"figures here are of its {record.split} split, {record.num_examples:,} examples, which it was not trained on."
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
    config = _read(folder / "config.json")
    if positions := config.get("max_position_embeddings", 0) - config.get("position_offset", 0):
        lines.append(f"It reads at most {positions:,} tokens; `truncation=True` cuts the rest off.")
    if missing := (record.never_answered or {}).get("student"):
        lines.append(f"It never answers {escape_markdown(', '.join(missing))}.")
    if (error := student.calibration_error) is not None:
        lines.append(f"Its probabilities are off by {percent(error)} on average (expected calibration error).")
    return "## Limits\n\n" + "\n".join(f"* {line}" for line in lines)


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON file of the student's folder, empty where it has none."""
    try:
        return dict(read_json(path))
    except (OSError, ValueError, TypeError):
        return {}
