"""The search for a student that is as fast as was asked for: measured first, tried once the teacher is trained.

What is known is written into the run folder after every step, so that a run that is killed goes on with the shapes
that it began with, and with the scores that it has.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter

from distill.benchmark.shape_choice import best, weights_per_layer
from distill.config.shape_search import (
    ShapeSearch,
    StudentShape,
    TriedShape,
    read_search,
    search_file,
)
from distill.config.student_schema import FIT
from distill.reporting.search_table import search_cells
from distill.reporting.tables import text_table, without_gaps
from distill.training.accelerator import on_main_process
from distill.training.run_folder import update_config
from distill.utils.errors import UserError
from distill.utils.files import write_atomically
from distill.utils.record_json import to_json
from pipelines.run.context import DistillationSetup, RunContext
from pipelines.run.plan import in_words, plan_phases
from pipelines.run.recipe import apply_recipe
from pipelines.run.shape_speeds import full_shape, measure_search, of_shape
from pipelines.run.student import build_student
from pipelines.run.trial import trial_stages, try_shape


def given_shape(
    context: RunContext, setup: DistillationSetup, shape: StudentShape
) -> tuple[RunContext, DistillationSetup]:
    """Return context and setup of a student of a shape, with what the recipe makes of it."""
    context, setup = of_shape(context, setup, shape)
    student = build_student(context, setup.start, setup, quiet=True)
    context, setup, _ = apply_recipe(context, setup, student, quiet=True)
    return context, setup


def first_shape(
    context: RunContext, setup: DistillationSetup, search: ShapeSearch | None
) -> tuple[RunContext, DistillationSetup]:
    """Return context and setup for a look at the largest student that may be taken; as they are where it is known."""
    if context.config.student.target_speedup is None:
        return context, setup
    shapes = [full_shape(setup, 1)] if search is None else [each.shape for each in search.finalists]
    return of_shape(context, setup, max(shapes, key=lambda shape: shape.num_layers * weights_per_layer(shape)))


def still_open(
    asked: RunContext, context: RunContext, setup: DistillationSetup
) -> tuple[RunContext, DistillationSetup]:
    """Return context and setup with all but shape or attention chosen, where these are asked for.

    Args:
        asked: the context before anything was chosen.
    """
    student = asked.config.student
    if student.target_speedup is None and student.attention != FIT:
        return context, setup
    config = replace(context.config, student=student, stages=asked.config.stages)
    return replace(context, config=config), setup


def plan_search(context: RunContext, setup: DistillationSetup, *, only_look: bool) -> ShapeSearch | None:
    """Find the shapes that are fast enough, or read which they were when this run began, and print them.

    Args:
        only_look: whether nothing may be written.

    Returns:
        None where the shape is given.

    Raises:
        UserError: no shape is fast enough, or speed cannot be measured.
    """
    if context.config.student.target_speedup is None:
        return None
    search = read_search(context.folder.path)
    if search is None or not search.answers(context.config):
        search = on_main_process(context.run.accelerator, lambda: measure_search(context, setup, only_look=only_look))
    if not search.finalists:
        raise UserError(why_none(search))
    context.run.accelerator.print("\n".join(search_lines(context, setup, search)))
    return search


# ---------------------------------------------------------------- what is said before

TO_TELL = "give more comparison.seconds_per_point, or a machine without other work"


def why_none(search: ShapeSearch) -> str:
    """Return why no shape is taken, with the way out."""
    fastest = max(search.tried, key=lambda each: each.speedup)
    asked, measured = f"student.target_speedup is {search.target_speedup:g}", f"at {search.length} tokens; the fastest"
    measured += f" measured, {fastest.shape.in_words}, is {fastest.speed_in_words}"
    if fastest.is_open(search.target_speedup):
        return f"{asked}: whether a shape reaches it cannot be told here {measured}; {TO_TELL}"
    return f"{asked}: no shape reaches it {measured}; give less than that, or longer texts as student.target_length"


def open_speeds(search: ShapeSearch) -> Iterator[str]:
    """Yield one line about the shapes that are taken for fast enough though their intervals leave that open."""
    left_open = [each for each in search.finalists if each.is_open(search.target_speedup)]
    if left_open:
        shapes = ", ".join(f"{each.shape.in_words} ({each.speed_in_words})" for each in left_open)
        yield (
            f"warning: timings vary too much here to tell whether {search.target_speedup:g} is reached by {shapes}; "
            f"the measured ratio decides; to tell, {TO_TELL}"
        )


def search_lines(context: RunContext, setup: DistillationSetup, search: ShapeSearch) -> Iterator[str]:
    """Yield what will be tried, and about how long that takes."""
    yield table_of(search)
    yield from open_speeds(search)
    left = [each.shape for each in search.finalists if each.divergence is None]
    if len(search.finalists) > 1 and left:
        seconds = sum(seconds_of_trial(context, setup, shape) for shape in left)
        yield f"short runs of {len(left)} of them, about {in_words(seconds)}: the one nearest to the teacher is taken"


def table_of(search: ShapeSearch) -> str:
    """Return what is known of the shapes so far, as a table for the terminal."""
    return "\n" + text_table(without_gaps(search_cells(search))) + "\n"


def seconds_of_trial(context: RunContext, setup: DistillationSetup, shape: StudentShape) -> float:
    """Return about how long the short run of a shape takes."""
    context, setup = given_shape(context, setup, shape)
    student = build_student(context, setup.start, setup, quiet=True)
    stages = trial_stages(setup, shape)
    return sum(phase.seconds for phase in plan_phases(context, setup, [(stage, student) for stage in stages]))


# ---------------------------------------------------------------- the search itself


def find_shape(context: RunContext, setup: DistillationSetup) -> tuple[RunContext, DistillationSetup]:
    """Try the shapes that are fast enough, and return the run of the one nearest to the teacher.

    A run whose shape is known is returned as it is.
    """
    search = setup.search
    if search is None:
        return context, setup
    if len(search.finalists) > 1:
        for each in search.finalists:
            if each.divergence is None:
                started = perf_counter()
                divergence, agreement = try_shape(*given_shape(context, setup, each.shape), each.shape)
                seconds = perf_counter() - started
                scored = replace(each, divergence=divergence, agreement=agreement, seconds=seconds)
                search = with_scores(search, scored)
                keep_search(context, search)
    chosen = best(list(search.finalists)).shape
    search = replace(search, chosen=chosen)
    several = len(search.finalists) > 1
    lines = [table_of(search)] if several else []
    context.run.accelerator.print("\n".join([*lines, f"student: {chosen.in_words}"]))
    keep_search(context, search)
    context, setup = given_shape(context, setup, chosen)
    if context.run.accelerator.is_main_process:
        update_config(context.config, context.folder)
    context.run.accelerator.wait_for_everyone()
    return context, setup


def with_scores(search: ShapeSearch, scored: TriedShape) -> ShapeSearch:
    """Return the search with the scores of one shape."""
    return replace(search, tried=tuple(scored if each.shape == scored.shape else each for each in search.tried))


def keep_search(context: RunContext, search: ShapeSearch | None) -> None:
    """Write down what is known of a search, for a continuation of this run and for its record."""
    if search is not None and context.run.accelerator.is_main_process:
        write_atomically(search_file(context.folder.path), json.dumps(to_json(search), indent=1))
