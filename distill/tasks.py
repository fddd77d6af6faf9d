"""The tasks: which columns they read, what their labels mean and how they are scored.

Columns, label order and metrics are those of GLUE (Wang et al. 2018, arXiv:1804.07461; ``nyu-mll/glue``), IMDB
(``stanfordnlp/imdb``) and KLUE (Park et al. 2021, arXiv:2105.09680; ``klue/klue``). The table alone is imported by
the command line, so this module imports no library.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from distill.utils.errors import UserError, choices_hint

CUSTOM = "custom"
TEXT = "text"
CAUSAL, MASKED = "causal", "masked"
LANGUAGE_MODELS = (CAUSAL, MASKED)
TEXT_METRICS = ("loss", "perplexity", "bits_per_character")
"""Of a language model: lower is better. The loss is that of a token, in nats."""
MAIN_METRICS = ("accuracy", "macro_f1", "f1", "matthews_correlation")
REGRESSION_METRICS = ("pearson", "spearmanr")
MULTI_LABEL_METRICS = ("micro_f1", "macro_f1", "subset_accuracy")
FEW_EXAMPLES = 100
"""Validation rows below which an interval says little: with 99 right of 99, up to 3 % may still be wrong."""
SCORE = "score"
MULTI_LABEL = "multi_label_classification"


@dataclass(frozen=True)
class Task:
    """One text classification or regression task."""

    name: str
    text_columns: tuple[str, ...]
    """One text column or the two of a pair."""
    label_column: str
    label_names: tuple[str, ...]
    """Class names in label order; empty for regression."""
    metrics: tuple[str, ...]
    """Names of `distill.evaluation.metrics.METRICS`; the first is the main metric."""
    hub: tuple[str, str | None] | None = None
    """Repository and configuration on the Hub."""
    validation_splits: tuple[str, ...] = ("validation",)
    """Splits that are reported; the first carries the main metric."""
    label_range: tuple[float, float] | None = None
    """Lowest and highest score of a regression task, where it has them."""
    order_is_given: bool = False
    """Whether the user wrote `label_names`, which then is the order of a finished model's outputs too."""
    multi_label: bool = False
    """Whether a text may have several of the labels, or none: every label is then decided by itself."""
    indicator_columns: tuple[str, ...] = ()
    """Of a multi-label task with a 0/1 column for each label, these columns in label order."""
    label_separator: str | None = None
    """Of a multi-label task with the labels of a row in one text, what stands between them."""

    test_splits: tuple[str, ...] = ()
    """Splits whose labels only a server knows; without those of `validation_splits`."""
    language_model: str | None = None
    """Of task text, what kind of model it is for: causal or masked."""

    @property
    def is_regression(self) -> bool:
        return not self.label_names and self.language_model is None

    @property
    def num_labels(self) -> int:
        """Width of the classifier: one output for regression."""
        return len(self.label_names) or 1

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of a classifier's outputs, in order; a score is called after its column, unless that says nothing."""
        return self.label_names or (SCORE if self.label_column == "label" else self.label_column,)

    @property
    def problem_type(self) -> str:
        """Kind of the task, as transformers calls it."""
        if self.multi_label:
            return MULTI_LABEL
        return "regression" if self.is_regression else "single_label_classification"

    @property
    def columns_of_labels(self) -> tuple[str, ...]:
        """Columns that are read for the labels: one, or one for each label."""
        return self.indicator_columns or (self.label_column,)

    @property
    def main_metric(self) -> str:
        return self.metrics[0]


def _glue(
    name: str,
    text_columns: tuple[str, ...],
    label_names: tuple[str, ...],
    metrics: tuple[str, ...] = ("accuracy",),
    validation_splits: tuple[str, ...] = ("validation",),
    label_range: tuple[float, float] | None = None,
    test_splits: tuple[str, ...] = ("test",),
) -> Task:
    hub = ("nyu-mll/glue", name)
    task = Task(name, text_columns, "label", label_names, metrics, hub, validation_splits, label_range)
    return replace(task, test_splits=test_splits)


_SENTENCES = ("sentence1", "sentence2")
_PREMISE_HYPOTHESIS = ("premise", "hypothesis")
_ENTAILMENT = ("entailment", "not_entailment")
_THREE_WAY_ENTAILMENT = ("entailment", "neutral", "contradiction")
_TOPICS = ("IT과학", "경제", "사회", "생활문화", "세계", "스포츠", "정치")

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _glue("cola", ("sentence",), ("unacceptable", "acceptable"), ("matthews_correlation",)),
        _glue("sst2", ("sentence",), ("negative", "positive")),
        _glue("mrpc", _SENTENCES, ("not_equivalent", "equivalent"), ("f1", "accuracy")),
        _glue("stsb", _SENTENCES, (), ("pearson", "spearmanr"), label_range=(0.0, 5.0)),
        _glue("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), ("f1", "accuracy")),
        _glue(
            "mnli",
            _PREMISE_HYPOTHESIS,
            _THREE_WAY_ENTAILMENT,
            validation_splits=("validation_matched", "validation_mismatched"),
            test_splits=("test_matched", "test_mismatched"),
        ),
        _glue("qnli", ("question", "sentence"), _ENTAILMENT),
        _glue("rte", _SENTENCES, _ENTAILMENT),
        _glue("wnli", _SENTENCES, ("not_entailment", "entailment")),
        # The official set has no validation split: its test split is labelled and is what papers report.
        Task("imdb", ("text",), "label", ("neg", "pos"), ("accuracy",), ("stanfordnlp/imdb", None), ("test",)),
        Task("klue_tc", ("title",), "label", _TOPICS, ("macro_f1",), ("klue/klue", "ynat")),
        Task("klue_nli", _PREMISE_HYPOTHESIS, "label", _THREE_WAY_ENTAILMENT, ("accuracy",), ("klue/klue", "nli")),
        Task("klue_sts", _SENTENCES, "label", (), ("pearson", "f1"), ("klue/klue", "sts"), label_range=(0.0, 5.0)),
    )
}


def task_names() -> list[str]:
    """Names that the key `task` accepts."""
    return [*TASKS, TEXT, CUSTOM]


def get_task(name: str) -> Task:
    """Return the published task called ``name``; `distill.data.splits.resolve_task` also builds ``custom``.

    Raises:
        UserError: no such task.
    """
    if name == TEXT:
        raise UserError("task: text has no labels and is for language models, which pipelines/distill.py trains")
    if name not in TASKS:
        raise UserError(f"task: there is no task {name!r}; {choices_hint(name, task_names())}")
    return TASKS[name]


def text_task(kind: str) -> Task:
    """Return the task of predicting text, for a ``causal`` or a ``masked`` language model."""
    return Task(TEXT, ("text",), "", (), TEXT_METRICS, language_model=kind)


def custom_task(
    text_columns: Iterable[str],
    label_column: str,
    label_names: Iterable[str] | None,
    regression: bool,
    main_metric: str | None = None,
    *,
    multi_label: bool = False,
    indicator_columns: Iterable[str] = (),
    label_separator: str | None = None,
) -> Task:
    """Build a task on data of one's own: accuracy and macro F1, Pearson and Spearman, or micro and macro F1.

    Args:
        main_metric: of `MAIN_METRICS`, `REGRESSION_METRICS` or `MULTI_LABEL_METRICS`, put before the others; None:
            the first of these.
        multi_label, indicator_columns, label_separator: as in `Task`.

    Raises:
        UserError: columns, labels and metric do not make a task.
    """
    columns, names = tuple(text_columns), tuple(str(name) for name in label_names or ())
    if len(columns) not in (1, 2):
        raise UserError(f"data.text_columns: task custom needs one or two columns, not {list(columns)}")
    if label_column in columns:
        raise UserError(f"data.label_column: {label_column!r} is also a text column")
    if regression and names:
        raise UserError("data.label_names: a regression task has no label names; leave them out")
    if not regression and (len(names) < 2 or len(set(names)) < len(names)):
        raise UserError(f"data.label_names: a classification needs two or more different labels, not {list(names)}")
    allowed = REGRESSION_METRICS if regression else MULTI_LABEL_METRICS if multi_label else MAIN_METRICS
    metrics: tuple[str, ...] = allowed[:2]
    if main_metric is not None:
        if main_metric not in allowed:
            raise UserError(f"data.main_metric is {main_metric!r}: {choices_hint(main_metric, allowed)}")
        if main_metric == "f1" and len(names) > 2:
            raise UserError(f"data.main_metric: f1 is of two classes, and there are {len(names)}; give macro_f1")
        metrics = (main_metric, *(name for name in metrics if name != main_metric))
    task = Task(CUSTOM, columns, label_column, names, metrics, multi_label=multi_label)
    return replace(task, indicator_columns=tuple(indicator_columns), label_separator=label_separator)
