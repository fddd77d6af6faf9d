"""The model card of a student, made from its record: what it is, how good, how fast, how to load it."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from distill.evaluation.record import Record, dataset, model_metrics
from distill.evaluation.text_record import TextRecord
from distill.reporting.base_model import BaseModel
from distill.reporting.card_sections import base_section, data_section, labels_section, limits_section, use_section
from distill.reporting.formatting import metric_label
from distill.reporting.measurement_tables import alternative_cells, memory_cells, speed_cells
from distill.reporting.record_tables import model_cells, stage_cells
from distill.reporting.tables import Table, markdown_cells, without_gaps
from distill.reporting.text_report import model_cells as language_model_cells
from distill.reporting.text_report import verdict
from distill.reporting.verdict import verdict_sentences
from distill.tasks import CAUSAL, TASKS, Task
from distill.utils.errors import UserError
from distill.utils.files import write_atomically

EMBEDDED = "embedded"


def write_model_card(
    record: Record,
    student_folder: Path | str,
    *,
    source: str | None = None,
    task: Task | None = None,
    base: BaseModel | None = None,
    more: Sequence[str] = (),
) -> Path:
    """Write ``README.md`` into the student's folder and return its path.

    ``source`` says where the examples came from, as the key ``data.dir`` does: None is the Hub, ``embedded`` the
    miniature tasks written by a grammar, anything else a folder. Only Hub data is named as a Hub data set, so that
    a figure on the miniature SST-2 never passes for one on SST-2. ``task``: of the run; None is the published task
    of the record's name. ``base``: what the teacher was fine-tuned from, None for a teacher trained from scratch.
    ``more``: sections that stand before the tables.
    Raises :class:`UserError` when the folder cannot be written.
    """
    data = _card_data(record, source, base)
    path = Path(student_folder) / "README.md"
    return _write_card(path, data, _body(record, source, path.parent, task or TASKS.get(record.task), base, more))


def write_export_card(folder: Path, name: str, task: Task, export: str) -> Path:
    """Write ``README.md`` into the folder of an exported model that has no record, and return its path.

    Args:
        folder: with the configuration.
        name: of the model.
        task: what it answers.
        export: the section that says where it comes from.

    Raises:
        UserError: the folder cannot be written.
    """
    data = ModelCardData(
        model_name=name,
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["knowledge-distillation"],
    )
    body = [f"# {name}", use_section(folder, task), labels_section(folder, task), export]
    return _write_card(folder / "README.md", data, body)


def write_language_model_card(record: TextRecord, folder: Path) -> Path:
    """Write ``README.md`` into the folder of a language model's student and return its path."""
    is_causal = record.model == CAUSAL
    student = record.models["student"]
    name = f"{student.attention}-{student.layers}-layers-{record.data_name}"
    data = ModelCardData(
        model_name=name,
        library_name="transformers",
        pipeline_tag="text-generation" if is_causal else "fill-mask",
        tags=["knowledge-distillation", "efficient-attention", *mechanisms_of(str(student.attention))],
    )
    kind = "AutoModelForCausalLM" if is_causal else "AutoModelForMaskedLM"
    last = (
        "tokenizer.decode(model.generate(**tokens, max_new_tokens=50)[0])" if is_causal else "model(**tokens).logits"
    )
    use = [
        "```python",
        f"from transformers import AutoTokenizer, {kind}",
        "",
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        f'model = {kind}.from_pretrained("FOLDER", trust_remote_code=True)',
        'tokens = tokenizer("the", return_tensors="pt")',
        last,
        "```",
    ]
    cells = without_gaps(language_model_cells(record))
    body = [f"# {name}", " ".join(verdict(record)), "\n".join(use), markdown_cells(cells)]
    return _write_card(folder / "README.md", data, body)


def _write_card(path: Path, data: ModelCardData, body: Sequence[str]) -> Path:
    text = "\n\n".join(["---\n" + data.to_yaml() + "\n---", *body]) + "\n"
    try:
        write_atomically(path, text)
    except OSError as error:
        raise UserError(
            f"cannot write the model card to {path}: {error.strerror or error}; make room or give permission there, "
            "and start the same command again"
        ) from error
    return path


def _card_data(record: Record, source: str | None, base: BaseModel | None) -> ModelCardData:
    task = TASKS.get(record.task)
    hub = task.hub if task and source is None else None
    metrics = {name: value for name, value in model_metrics(record, "student").items() if value is not None}
    return ModelCardData(
        model_name=_model_name(record),
        library_name="transformers",
        base_model=base.hub_name if base else None,
        license=base.licence if base else None,
        pipeline_tag="text-classification",
        language="ko" if record.task.startswith("klue") else None,
        datasets=[hub[0]] if hub else None,
        metrics=list(dict.fromkeys(_hub_metric(name) for name in metrics)),
        tags=["knowledge-distillation", "efficient-attention", *mechanisms_of(_attention(record))],
        eval_results=[_eval_result(record, source, name, value) for name, value in metrics.items()],
    )


def _eval_result(record: Record, source: str | None, name: str, value: float) -> EvalResult:
    task = TASKS.get(record.task)
    hub = task.hub if task and source is None else None
    return EvalResult(
        task_type="text-classification",
        dataset_type=hub[0] if hub else _dataset_slug(record, source),
        dataset_name=_dataset_name(record, source),
        dataset_config=hub[1] if hub else None,
        dataset_split="validation_mismatched" if name.endswith("_mismatched") else record.split,
        metric_type=_hub_metric(name),
        metric_name=metric_label(name),
        metric_value=round(float(value), 6),
    )


def _hub_metric(name: str) -> str:
    """Name a metric as the Hub does."""
    hub = {"macro_f1": "f1", "micro_f1": "f1", "accuracy_mismatched": "accuracy", "subset_accuracy": "accuracy"}
    return hub.get(name, name)


def _dataset_slug(record: Record, source: str | None) -> str:
    return f"{EMBEDDED}-{record.task}" if source == EMBEDDED else record.task


def _dataset_name(record: Record, source: str | None) -> str:
    if source == EMBEDDED:
        return f"{record.task}, embedded miniature written by a grammar"
    return record.task if source is None else f"{dataset(record)}, read from a folder"


def _model_name(record: Record) -> str:
    return f"{_attention(record)}-{record.models.student.layers}-layers-{dataset(record).replace(' ', '-')}"


def _attention(record: Record) -> str:
    """Name the mechanism alone, without up to which length it is exact."""
    return str(record.models.student.attention).partition(",")[0]


def mechanisms_of(attention: str) -> list[str]:
    """Return the mechanisms of an ``abc+performer+abc``, each once."""
    return list(dict.fromkeys(attention.split("+")))


def _body(
    record: Record,
    source: str | None,
    folder: Path,
    task: Task | None,
    base: BaseModel | None,
    more: Sequence[str],
) -> list[str]:
    tables: list[Table] = [
        model_cells(record),
        alternative_cells(record),
        speed_cells(record),
        memory_cells(record),
        stage_cells(record),
    ]
    command = record.environment.get("command")
    return [
        f"# {_model_name(record)}",
        " ".join(verdict_sentences(record)),
        use_section(folder, task),
        labels_section(folder, task),
        data_section(record, _dataset_name(record, source), task),
        base_section(base),
        limits_section(record, folder),
        *more,
        *(markdown_cells(cells) for cells in map(without_gaps, tables) if cells.rows),
        *([f"## Made with\n\n```\n{command}\n```"] if command else []),
    ]
