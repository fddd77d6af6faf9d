"""How fast students of every shape are here, before any is trained: the table, and the shapes that were measured."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from distill.benchmark.conditions import DTYPES, Conditions
from distill.benchmark.latency_table import LatencyTable, kept_table, layer_kinds, measure_speedup, measure_table
from distill.benchmark.shape_choice import Speed, decide_speed, try_speeds
from distill.benchmark.timing import PointError
from distill.config.shape_search import ShapeSearch, StudentShape, with_shape
from distill.data.batching import median_length
from distill.utils.environment import describe_environment
from distill.utils.errors import UserError
from distill.utils.record_json import to_json
from pipelines.run.context import DistillationSetup, RunContext, student_layer_map
from pipelines.run.student import build_student
from students import StudentForSequenceClassification
from students.families import bert_settings

MACHINE = ("torch", "cpu", "instruction_set", "threads", "gpu")
"""What of the environment the times depend on."""


def full_shape(setup: DistillationSetup, num_layers: int | None = None) -> StudentShape:
    """Return the shape of what the student is made of, or of some of its layers."""
    sizes = bert_settings(setup.start.config)
    layers = sizes["num_hidden_layers"] if num_layers is None else num_layers
    return StudentShape(layers, sizes["hidden_size"], sizes["intermediate_size"], sizes["num_attention_heads"])


def of_shape(
    context: RunContext, setup: DistillationSetup, shape: StudentShape
) -> tuple[RunContext, DistillationSetup]:
    """Return context and setup of a student of a shape, the recipe as it was."""
    context = replace(context, config=with_shape(context.config, shape))
    return context, replace(setup, layer_map=student_layer_map(context.config, setup.start), search=None)


def measure_search(context: RunContext, setup: DistillationSetup, *, only_look: bool) -> ShapeSearch:
    """Build the latency table, or take the one in ``cache.dir``, and measure the promising shapes."""
    config, settings = context.config, context.config.student
    target = settings.target_speedup
    assert target is not None
    length = settings.target_length or median_length(setup.validation)
    vocabulary = min(model.config.vocab_size for model in (setup.teacher, setup.start))
    conditions = Conditions(context.device, DTYPES[config.comparison.dtype], vocabulary)
    seconds = config.comparison.seconds_per_point
    one_layer, of_one_layer = of_shape(context, setup, full_shape(setup, 1))
    template = build_student(one_layer, setup.start, of_one_layer, quiet=True)
    last = settings.softmax_layers

    def build(shape: StudentShape) -> StudentForSequenceClassification:
        return random_student(template, shape, last)

    def measure() -> LatencyTable:
        whole = full_shape(setup)
        kinds = [kind for kind in layer_kinds(*_sizes(whole)) if fits(template, kind, last)]
        return measure_table(setup.teacher, build, kinds, whole.num_layers, conditions, length, seconds)

    def measure_shape(shape: StudentShape) -> Speed:
        student = build(shape)
        return decide_speed(
            lambda budget: measure_speedup(setup.teacher, student, conditions, length, budget), target, seconds
        )

    try:
        folder = None if config.cache.dir is None else Path(config.cache.dir) / "latency"
        table = kept_table(folder, about_table(context, setup, template, length), measure, only_look=only_look)
        tried = try_speeds(table, target, measure_shape)
    except PointError as error:
        raise UserError(
            f"student.target_speedup: speed at {length} tokens cannot be measured here: {error}; "
            "give a shorter student.target_length, or more comparison.seconds_per_point"
        ) from error
    shapes = table.shapes
    return ShapeSearch(
        target_speedup=target,
        target_length=settings.target_length,
        length=length,
        device=conditions.place["device"],
        dtype=conditions.place["dtype"],
        predicted=len(shapes),
        promising=sum(speed >= target for _, speed in shapes),
        tried=tuple(tried),
    )


def _sizes(shape: StudentShape) -> tuple[int, int, int]:
    return shape.hidden_size, shape.intermediate_size, shape.num_heads


def student_config(template: Any, shape: StudentShape, softmax_layers: list[int]) -> Any:
    """Return the configuration of a student of another shape; ValueError if its mechanism cannot have it."""
    own = template.config
    sizes = {
        "num_hidden_layers": shape.num_layers,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_attention_heads": shape.num_heads,
        "head_size": own.size_of_head,
        "softmax_layers": list(softmax_layers),
        "layer_map": list(range(shape.num_layers)),
    }
    return type(own)(**own.to_dict() | sizes)


def fits(template: Any, shape: StudentShape, softmax_layers: list[int]) -> bool:
    """Tell whether the mechanism can have this shape."""
    try:
        student_config(template, shape, softmax_layers)
    except ValueError:
        return False
    return True


def random_student(template: Any, shape: StudentShape, softmax_layers: list[int]) -> Any:
    """Return a student of another shape with random weights, for timing alone."""
    with torch.random.fork_rng(devices=[]):
        return type(template)(student_config(template, shape, softmax_layers)).eval()


def about_table(context: RunContext, setup: DistillationSetup, template: Any, length: int) -> dict[str, Any]:
    """Return all that the times in a table depend on."""
    environment = describe_environment(context.device)
    named = ("attention", "num_features", "attention_options", "exact_up_to", "softmax_layers")
    teacher = {key: value for key, value in setup.teacher.config.to_dict().items() if key != "_name_or_path"}
    return {
        "machine": {name: environment[name] for name in MACHINE},
        "teacher": json.loads(json.dumps(teacher, default=str)),
        "shape": to_json(full_shape(setup)),
        "student": {name: getattr(context.config.student, name) for name in named},
        "length": length,
        "dtype": context.config.comparison.dtype,
    }
