"""Refuse a configuration that cannot work, in one line that names the key, before anything is loaded."""

import dataclasses
import math
import re
import typing
from collections.abc import Mapping
from typing import Any

from distill.config.attention_fit import check_attention, mechanism_of_student
from distill.config.choices import CHOICES
from distill.config.require import require, require_choice, require_positive
from distill.config.schema import (
    AUGMENTATIONS,
    AugmentationConfig,
    ComparisonConfig,
    Config,
    ScratchConfig,
    StudentSettings,
    TeacherConfig,
)
from distill.config.shape_search import check_target
from distill.config.stage_validation import (
    check_label_loss,
    check_losses,
    check_other_encoder,
    check_stage_settings,
    check_widths,
)
from distill.config.text_validation import check_text
from distill.tasks import TASKS, task_names
from distill.utils.errors import UserError, choices_hint

MAX_LENGTH = 131_072
NEVER_IN_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
HUB_NAME = re.compile(r"(?!.*(?:--|\.\.|\.git$|[.-]$|[.-]/))(?=.{1,96}$)(?:\w[\w.-]*/)?\w[\w.-]*", re.ASCII)
"""What the Hub takes as the name of a repository: OWNER/NAME, or NAME for one's own."""
MOST_OF_SCRATCH = {"num_layers": 1000, "hidden_size": 2**14, "intermediate_size": 2**16, "vocabulary_size": 10**6}


def check_config(config: Config, attentions: Mapping[str, Any] | None = None) -> None:
    """Refuse what cannot work, before anything is loaded.

    Args:
        attentions: what a student may have (``students.STUDENTS``); None skips the checks that need them.
    """
    _check_values(config)
    require_choice("task", config.task, task_names())
    _check_data(config)
    _check_teacher(config.teacher)
    _check_student(config.student, attentions)
    check_target(config.student, config.data.max_length)
    if config.stages:
        check_stage_settings(config.stages)
        check_widths(config)
    check_other_encoder(config)
    if attentions is not None:
        for stage in config.stages:
            check_losses(stage, config.student.attention_name, mechanism_of_student(config.student, attentions))
    _check_augmentation(config.augmentation, config.task)
    check_text(config, attentions)
    training = config.training
    require(0 <= training.warmup < 1, "training.warmup", training.warmup, "give a share of the steps from 0 to 1")
    require_positive(
        "training", training, ("gradient_accumulation", "checkpoint_every", "log_every", "max_gradient_norm")
    )
    if training.mixed_precision is not None:
        require_choice("training.mixed_precision", training.mixed_precision, CHOICES["training.mixed_precision"])
    check_label_loss(config)
    check_comparison(config.comparison)
    require(training.weight_decay >= 0, "training.weight_decay", training.weight_decay, "give 0 or more")
    epochs = config.baseline.epochs
    require(epochs is None or epochs >= 0, "baseline.epochs", epochs, "give a number, 0 for no baseline, or null")
    require_positive("baseline", config.baseline, ("learning_rate", "batch_size"))
    require(config.cache.max_gigabytes >= 0, "cache.max_gigabytes", config.cache.max_gigabytes, "give 0 or more")
    _check_services(config)


def _check_services(config: Config) -> None:
    repo = config.hub.repo
    named = repo is None or HUB_NAME.fullmatch(repo) is not None
    require(named, "hub.repo", repo, "give the name of a repository, such as me/my-student")
    for name in config.trackers:
        require_choice("trackers", name, CHOICES["trackers"])
    once = len(set(config.trackers)) == len(config.trackers)
    require(once, "trackers", config.trackers, "name each of them once")


def check_comparison(settings: ComparisonConfig) -> None:
    """Refuse what cannot be measured."""
    require_choice("comparison.dtype", settings.dtype, CHOICES["comparison.dtype"])
    require_positive("comparison", settings, ("seconds_per_point", "max_seconds", "resamples"))
    for key in ("batch_sizes", "lengths"):
        values = getattr(settings, key)
        require(all(value > 0 for value in values), f"comparison.{key}", values, "give positive whole numbers")


def _check_values(values: Any, key: str = "") -> None:
    """Refuse what no key can mean: numbers that are not finite, seeds that no generator takes, control characters."""
    if dataclasses.is_dataclass(values):
        for entry in dataclasses.fields(values):
            name, value = f"{key}.{entry.name}" if key else entry.name, getattr(values, entry.name)
            optional = type(None) in typing.get_args(entry.type)
            require(value is not None or optional, name, None, "give it a value, or leave it out")
            _check_values(value, name)
    elif isinstance(values, Mapping):
        for name, value in values.items():
            _check_values(name, key)
            _check_values(value, f"{key}.{name}")
    elif isinstance(values, list | tuple):
        for value in values:
            _check_values(value, key)
    elif isinstance(values, float):
        require(math.isfinite(values), key, values, "give a finite number")
        require(abs(values) < 2**53, key, values, "give a smaller number")
    elif isinstance(values, str):
        require(not NEVER_IN_TEXT.search(values), key, values, "leave out control characters; write it in UTF-8")
    elif key in ("seed", "data.seed"):
        require(0 <= values < 2**32, key, values, "give a whole number from 0 to 4294967295")
    elif isinstance(values, int):
        require(abs(values) < 2**53, key, values, "give a smaller number")


def _check_data(config: Config) -> None:
    data = config.data
    require_positive("data", data, ("max_train_examples",))
    fits = 8 <= data.max_length <= MAX_LENGTH
    require(fits, "data.max_length", data.max_length, f"give at least 8 tokens and at most {MAX_LENGTH:,}")
    empty = data.unlabelled is not None and not data.unlabelled.strip()
    require(not empty, "data.unlabelled", data.unlabelled, "give a file or a folder of texts, or null for none")
    require(0 < data.held_out_fraction < 0.5, "data.held_out_fraction", data.held_out_fraction, "give 0 to 0.5")
    if config.task == "custom":
        require(data.dir is not None, "data.dir", None, "task custom needs its file, or the folder of its files")
        columns, fraction = data.text_columns, data.validation_fraction
        fits = columns is None or len(columns) in (1, 2)
        require(fits, "data.text_columns", columns, "task custom reads one or two text columns")
        require(0 < fraction < 0.5, "data.validation_fraction", fraction, "give a share between 0 and 0.5")
        kinds = [name for name in ("regression", "multi_label") if getattr(data, name)]
        require(len(kinds) < 2, "data.multi_label", True, "a regression has no labels; set one of the two to false")
        several = isinstance(data.label_column, list) and not data.multi_label
        way_out = "one column holds the label; for a 0/1 column per label give --data.multi_label true"
        require(not several, "data.label_column", data.label_column, way_out)
        both = data.regression and data.label_names is not None
        require(
            not both, "data.label_names", data.label_names, "a regression has no label names; remove one of the two"
        )
    else:
        for name in ("text_columns", "label_names", "main_metric", "regression", "multi_label"):
            value, unset = getattr(data, name), "false" if name in ("regression", "multi_label") else "null"
            way_out = f"task {config.task} has its own; it goes only with task custom (else --data.{name} {unset})"
            require(not value, f"data.{name}", value, way_out)


def _check_augmentation(augmentation: AugmentationConfig, task: str) -> None:
    none_or_more = augmentation.copies is None or augmentation.copies >= 0
    require(none_or_more, "augmentation.copies", augmentation.copies, "give a number, 0 for none")
    require(len(augmentation.kinds) > 0, "augmentation.kinds", [], f"give at least one of {', '.join(AUGMENTATIONS)}")
    for kind in augmentation.kinds:
        require_choice("augmentation.kinds", kind, AUGMENTATIONS)
    require(0 < augmentation.share < 1, "augmentation.share", augmentation.share, "give a share between 0 and 1")
    require_positive("augmentation", augmentation, ("candidates",))
    distinct = len(set(augmentation.kinds)) == len(augmentation.kinds)
    require(distinct or not augmentation.choose, "augmentation.kinds", augmentation.kinds, "give each to try once")
    some = augmentation.copies != 0
    require(
        some or not augmentation.choose, "augmentation.copies", 0, "augmentation.choose tries copies; leave one out"
    )
    for name in augmentation.tasks:
        require_choice("augmentation.tasks", name, [other for other in TASKS if other != task])


def _check_teacher(teacher: TeacherConfig) -> None:
    require_positive("teacher", teacher, ("learning_rate", "batch_size"))
    require(
        teacher.epochs is None or teacher.epochs >= 0, "teacher.epochs", teacher.epochs, "give more than 0, or null"
    )
    require(
        teacher.layer_decay is None or 0 < teacher.layer_decay <= 1,
        "teacher.layer_decay",
        teacher.layer_decay,
        "give a share above 0, at most 1",
    )
    require(teacher.new_layers >= 0, "teacher.new_layers", teacher.new_layers, "give a number of layers, 0 for none")
    require_positive("teacher", teacher, ("patience", "tries"))
    scratch = teacher.scratch
    require_positive("teacher.scratch", scratch, [entry.name for entry in dataclasses.fields(ScratchConfig)])
    for name, most in MOST_OF_SCRATCH.items():
        size = getattr(scratch, name)
        require(size <= most, f"teacher.scratch.{name}", size, f"give at most {most:,}")
    divisible = scratch.hidden_size % scratch.num_heads == 0
    require(
        divisible, "teacher.scratch.num_heads", scratch.num_heads, f"must divide hidden_size {scratch.hidden_size}"
    )


def _check_student(student: StudentSettings, attentions: Mapping[str, Any] | None) -> None:
    mechanism = None
    if attentions is not None:
        check_attention(student, attentions)
        mechanism = mechanism_of_student(student, attentions)
        _check_options(student, mechanism)
    require_positive("student", student, ("num_layers", "redraw_interval"))
    require(
        student.exact_up_to >= 0, "student.exact_up_to", student.exact_up_to, "give a number of tokens, 0 for never"
    )
    if mechanism is not None and student.exact_up_to:
        problem = mechanism.why_not_exact(student.attention_options)
        way_out = f"{student.attention_name} attention {problem}; set student.exact_up_to 0"
        require(problem is None, "student.exact_up_to", student.exact_up_to, way_out)
    _check_features(student, mechanism)
    _check_sizes(student)
    require_choice("student.features", student.features, CHOICES["student.features"])
    if isinstance(student.layer_map, str):
        require_choice("student.layer_map", student.layer_map, CHOICES["student.layer_map"])
    else:
        right = len(student.layer_map) == student.num_layers
        require(
            right, "student.layer_map", student.layer_map, f"name student.num_layers = {student.num_layers} layers"
        )
    if isinstance(student.initial_temperature, str):
        require_choice("student.initial_temperature", student.initial_temperature, ("calibrated",))
    else:
        require_positive("student", student, ("initial_temperature",))
    inside = all(-student.num_layers <= layer < student.num_layers for layer in student.softmax_layers)
    advice = f"give layers 0 to {student.num_layers - 1}, or -1, the last"
    require(inside, "student.softmax_layers", student.softmax_layers, advice)


def _check_features(student: StudentSettings, mechanism: Any) -> None:
    numbers = student.num_features
    if not isinstance(numbers, list):
        require_positive("student", student, ("num_features",))
        return
    shared = mechanism is not None and not mechanism.features_per_layer
    advice = f"give one number; {student.attention_name} has one for all layers"
    require(not shared, "student.num_features", numbers, advice)
    right = len(numbers) == student.num_layers and all(number > 0 for number in numbers)
    require(right, "student.num_features", numbers, f"give student.num_layers = {student.num_layers} numbers above 0")


def _check_sizes(student: StudentSettings) -> None:
    """Refuse widths that no student can have; how wide it can be is known with what it is made of."""
    for name in ("hidden_size", "intermediate_size", "num_heads"):
        size, key = getattr(student, name), f"student.{name}"
        if size is None:
            continue
        frozen = student.attention == "lstm"
        require(not frozen, key, size, "attention lstm keeps the layers as they are; leave it out")
        if isinstance(size, list):
            right = len(size) == student.num_layers and all(number > 0 for number in size)
            require(right, key, size, f"give student.num_layers = {student.num_layers} numbers above 0")
        else:
            require(size > 0, key, size, "give a number above 0, or null")


def _check_options(student: StudentSettings, mechanism: Any) -> None:
    for name in student.attention_options:
        hint = f"it has: {choices_hint(name, mechanism.options).removeprefix('choose one of ')}"
        if name not in mechanism.options:
            raise UserError(
                f"student.attention_options: {student.attention_name} has no option {name!r}; "
                f"{hint if mechanism.options else 'it has none, so leave it out'}"
            )
    if mechanism.options:
        try:
            mechanism.resolve_options(student.attention_options)
        except ValueError as error:
            raise UserError(f"student.attention_options: {error}") from error
