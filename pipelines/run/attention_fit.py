"""The fit of mechanisms to single attention blocks: each is tried in every block, and every layer takes its own.

What is known is written into the run folder after every mechanism, so that a run that is killed goes on with it.
"""

import json
import math
from contextlib import suppress
from dataclasses import replace
from time import perf_counter

from distill.benchmark.conditions import DTYPES, Conditions
from distill.benchmark.latency_table import measure_speedup
from distill.benchmark.timing import PointError, memory_errors
from distill.config.attention_fit import (
    AttentionFit,
    TriedAttention,
    fit_file,
    read_fit,
    with_attention,
)
from distill.config.recipe import epochs_of
from distill.config.schema import FIRST_TOKEN, Config, StageConfig
from distill.config.student_schema import FIT
from distill.evaluation.predict import held_out_scorer
from distill.models.flops import model_flops
from distill.models.linear_form import linear_form
from distill.objectives.layer_fidelity import block_fidelity
from distill.reporting.fit_table import fit_cells
from distill.reporting.tables import text_table, without_gaps
from distill.training.accelerator import on_main_process
from distill.training.context import StageInputs
from distill.training.loop import StageTrainer
from distill.training.run_folder import update_config
from distill.utils.errors import DivergedError, UserError
from distill.utils.files import remove, write_atomically
from distill.utils.record_json import to_json
from pipelines.run.context import DistillationSetup, RunContext
from pipelines.run.recipe import apply_recipe
from pipelines.run.student import build_student
from students import STUDENTS, StudentForSequenceClassification
from teachers.output_cache import stage_targets
from teachers.output_plan import plan_for

STEPS, BATCH_SIZE = 120, 16
"""Of a short run: the order of mechanisms in a block hardly changes later."""
LEARNING_RATE = 1e-3
"""That of the stage `transfer`, which trains blocks alone too."""


def first_attention(context: RunContext, setup: DistillationSetup) -> RunContext:
    """Return the context for a look at the costliest student that may be taken; as it is where it is known."""
    settings = context.config.student
    if settings.attention != FIT:
        return context
    length = context.config.data.max_length

    def operations(name: str) -> int:
        return model_flops(trial_student(context, setup, name).config, length)

    return replace(context, config=with_attention(context.config, max(settings.fit_attentions, key=operations)))


def find_attention(context: RunContext, setup: DistillationSetup) -> tuple[RunContext, DistillationSetup]:
    """Try the mechanisms in every block, and return the run in which every layer has its own.

    A run whose mechanisms are known is returned as it is.
    """
    if context.config.student.attention != FIT:
        return context, setup
    fit = kept_fit(context, setup, context.config) or new_fit(context, setup)
    say = context.run.accelerator.print
    known = {each.attention for each in fit.tried}
    for name in fit.candidates:
        if name not in known:
            say(f"fit: {name} in {len(setup.layer_map)} blocks")
            tried = try_attention(context, setup, name)
            fit = replace(fit, tried=(*fit.tried, timed(context, setup, tried, fit.length)))
            keep_fit(context, fit)
    if all(each.fidelity is None for each in fit.tried):
        raise UserError(
            "student.attention fit: no mechanism could be trained, each loss was not finite; look at the teacher and "
            "the data, or name a mechanism"
        )
    layers = range(len(setup.layer_map))
    chosen = ["softmax" if layer in fit.kept else fit.best(layer).attention for layer in layers]
    given = context.config.student.attention_options
    options = {key: value for key, value in given.items() if key in STUDENTS.of(chosen).options}
    fit = replace(fit, chosen=chosen, options=options)
    say(f"\n{text_table(without_gaps(fit_cells(fit)))}\n")
    keep_fit(context, fit)
    context = replace(context, config=with_attention(context.config, chosen, options))
    student = build_student(context, setup.start, setup, quiet=True)
    context, setup, _ = apply_recipe(context, setup, student, quiet=True)
    if context.run.accelerator.is_main_process:
        update_config(context.config, context.folder)
    context.run.accelerator.wait_for_everyone()
    return context, setup


def kept_fit(context: RunContext, setup: DistillationSetup, asked: Config) -> AttentionFit | None:
    """Return what the run has kept of the fit that a configuration asks for, if it can go on from there."""
    fit = read_fit(context.folder.path)
    goes_on = fit is not None and fit.answers(asked) and fit.goes_on(**conditions_of(context, setup).place)
    return fit if goes_on else None


def new_fit(context: RunContext, setup: DistillationSetup) -> AttentionFit:
    """Return the fit that the configuration asks for, with nothing tried."""
    settings, count = context.config.student, len(setup.layer_map)
    kept = sorted({layer % count for layer in settings.softmax_layers})
    conditions = conditions_of(context, setup)
    return AttentionFit(
        settings.fit_fidelity,
        list(settings.fit_attentions),
        context.config.data.max_length,
        conditions.place["device"],
        conditions.place["dtype"],
        kept,
    )


def keep_fit(context: RunContext, fit: AttentionFit) -> None:
    """Write down what is known, for a continuation of this run and for its record."""
    if context.run.accelerator.is_main_process:
        path = fit_file(context.folder.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(to_json(fit), indent=1))


def timed(context: RunContext, setup: DistillationSetup, tried: TriedAttention, length: int) -> TriedAttention:
    """Return what the main process has found, with the speed that it alone measures.

    A share or a time that differs between processes must not make two students of one.
    """

    def with_speed() -> TriedAttention:
        if tried.fidelity is None:
            return tried
        try:
            speedup, low, high = speed_over_softmax(context, setup, tried.attention, length)
        except PointError as error:
            return replace(tried, reason=str(error))
        return replace(tried, speedup=speedup, low=low, high=high)

    return on_main_process(context.run.accelerator, with_speed)


def conditions_of(context: RunContext, setup: DistillationSetup) -> Conditions:
    """Return where and how mechanisms are timed: as the finished student is."""
    dtype = DTYPES[context.config.comparison.dtype]
    return Conditions(context.device, dtype, setup.start.config.vocab_size)


def speed_over_softmax(
    context: RunContext, setup: DistillationSetup, name: str, length: int
) -> tuple[float, float, float]:
    """Return how many times as fast as with softmax a student with a mechanism in every layer is, and its interval.

    Raises:
        PointError: it runs out of memory, or takes far longer than ``comparison.seconds_per_point``.
    """
    with memory_errors():
        student, softmax = (trial_student(context, setup, each).eval() for each in (name, "softmax"))
    seconds = context.config.comparison.seconds_per_point
    with linear_form(student):
        return measure_speedup(softmax, student, conditions_of(context, setup), length, seconds)


def trial_student(context: RunContext, setup: DistillationSetup, name: str) -> StudentForSequenceClassification:
    """Return a student of one mechanism in every block, as wide as what it is made of."""
    config = with_attention(context.config, name)
    settings = replace(config.student, softmax_layers=[])
    alone = replace(context, config=replace(config, student=settings))
    exact = name if name == "softmax" else None  # which treats no short texts apart from others
    return build_student(alone, setup.start, setup, exact, full_width=True, quiet=True)


def trial_stage(name: str, rows: int) -> StageConfig:
    """Return the short run of a mechanism."""
    return StageConfig(
        name=f"fit-{name}",
        inputs="teacher",
        train="attention",
        epochs=epochs_of(STEPS, rows, BATCH_SIZE),
        learning_rate=LEARNING_RATE,
        batch_size=BATCH_SIZE,
        losses={"attention_output": 1.0},
        last_layer=FIRST_TOKEN,
    )


def try_attention(context: RunContext, setup: DistillationSetup, name: str) -> TriedAttention:
    """Train a mechanism in every block for a short time, each on what that block of the encoder reads, and measure.

    A short run that was interrupted starts anew: it is deterministic, and short.
    """
    run, started = context.run, perf_counter()
    folder = fit_file(context.folder.path).parent / name
    if run.accelerator.is_main_process:
        remove(folder)
    run.accelerator.wait_for_everyone()
    student = trial_student(context, setup, name)
    stage = trial_stage(name, len(setup.train))
    plan = plan_for(stage, setup.layer_map, setup.start.config.num_hidden_layers)
    targets = stage_targets(
        run.accelerator,
        setup.start,
        plan,
        setup.train,
        context.config.cache,
        context.folder.path / "checkpoints" / "teacher_outputs",
        worth_storing=False,
    )
    fidelity = None
    with linear_form(student), suppress(DivergedError):  # what is exact in short texts is not what is chosen
        inputs = StageInputs(setup.train, plan, targets.outputs)
        StageTrainer(run, student, stage, inputs, folder, held_out_scorer(run, context.task, setup.held_out)).run()
        fidelity = block_fidelity(setup.start, student, setup.layer_map, setup.held_out)
    targets.end()
    if run.accelerator.is_main_process:
        remove(folder)
    shares = (
        None if fidelity is None or not all(map(math.isfinite, fidelity)) else [round(each, 4) for each in fidelity]
    )
    return TriedAttention(name, shares, round(perf_counter() - started, 1))
