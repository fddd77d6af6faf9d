"""Looking for what would go wrong, before hours are spent on it: one function per check, one line per finding."""

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packaging.requirements import Requirement
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distill.config.schema import PACKED, Config, StageConfig, StudentSettings
from distill.data.batching import PAD_MULTIPLE, TokenizedExamples, collate
from distill.data.packing import PACKED_TEXTS
from distill.data.tokenization import PROBES
from distill.models.positions import positions_of
from distill.training.launcher import Launcher
from distill.training.optimizer import trained_part
from distill.training.run_folder import find_run_folder
from distill.utils.environment import ROOT
from distill.utils.errors import UserError
from distill.utils.findings import ERROR, OK, WARNING, Finding

FEWEST_STEPS = 100
"""Optimizer steps below which no stage has been seen to help."""
PADDING_EXAMPLES = 16
PADDING_TOLERANCE = 1e-3
"""Difference of logits, relative to the largest, that rounding explains in single precision; a leak is far larger."""


# ---------------------------------------------------------------- before anything is loaded


def check_versions(requirements: Path = ROOT / "requirements.txt") -> Iterator[Finding]:
    """Hold the installed packages against ``requirements.txt``."""
    wrong = []
    for line in requirements.read_text().splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        wanted = Requirement(text)
        try:
            installed = version(wanted.name)
        except PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(installed, prereleases=True):
            wrong.append(f"{wanted.name} is {installed}, not {wanted.specifier}")
    if wrong:
        yield Finding(WARNING, f"versions: {'; '.join(wrong)}; pip install -r {requirements.name}")
    else:
        yield Finding(OK, f"versions: as in {requirements.name}")


def check_launcher(config: Config, launcher: Launcher) -> Iterator[Finding]:
    """Hold what the launcher exported against the configuration."""
    found = list(_launcher_problems(config, launcher))
    way = "DeepSpeed" if launcher.deepspeed else "no DeepSpeed"
    place = _counted(launcher.gpus, "GPU", "GPUs") if launcher.gpus else "CPU"
    yield from found or [Finding(OK, f"launcher: {_processes(launcher.processes)}, {way}, {place}")]


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _processes(number: int) -> str:
    return _counted(number, "process", "processes")


def _launcher_problems(config: Config, launcher: Launcher) -> Iterator[Finding]:
    if launcher.unsupported:
        yield Finding(ERROR, f"launcher: {launcher.unsupported} is not supported; choose a file of configs/accelerate")
    if launcher.gpus and launcher.local_processes > launcher.gpus:
        yield Finding(
            ERROR,
            f"launcher: {_processes(launcher.local_processes)} on a machine with "
            f"{_counted(launcher.gpus, 'GPU', 'GPUs')}; "
            f"set --num_processes to at most {launcher.gpus} per machine",
        )
    yield from _accumulation_problems(config, launcher)
    parts = launcher.processes * config.training.gradient_accumulation
    sizes = {"teacher": config.teacher.batch_size, "baseline": config.baseline.batch_size}
    sizes |= {f"stages.{stage.name}": stage.batch_size for stage in config.stages}
    for section, size in sizes.items():
        if size is not None and size % parts:
            yield Finding(
                WARNING,
                f"launcher: {section}.batch_size {size} is not a multiple of {_processes(launcher.processes)} x "
                f"training.gradient_accumulation {config.training.gradient_accumulation}, so that some processes wait "
                f"in every step; give {-(-size // parts) * parts}",
            )


def _accumulation_problems(config: Config, launcher: Launcher) -> Iterator[Finding]:
    ours, theirs = config.training.gradient_accumulation, launcher.gradient_accumulation
    if theirs not in (None, "auto", "1", str(ours)):  # "1" is also what a launcher says that was not asked
        yield Finding(
            WARNING,
            f"launcher: it says gradient_accumulation_steps {theirs}, training.gradient_accumulation says {ours}, "
            "which is used; write auto in the launcher file",
        )


def check_compiler(launcher: Launcher, builds: Path | None = None) -> Iterator[Finding]:
    """Look whether DeepSpeed can compile its operation for CPUs, as it does at first use.

    Args:
        launcher: says whether it trains.
        builds: the folder where it compiles; None: where torch says.
    """
    if not launcher.deepspeed or launcher.gpus:
        yield Finding(OK, "compiler: not needed")
        return
    if shutil.which("g++") is None:
        yield Finding(ERROR, "compiler: DeepSpeed on a CPU needs g++, which is not on the PATH; install it")
        return
    if builds is None:
        from torch.utils.cpp_extension import get_default_build_root  # brings setuptools, which nobody else needs

        builds = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    locks = sorted(builds.glob("**/lock"))
    if locks:
        yield Finding(
            WARNING,
            f"compiler: DeepSpeed waits for {locks[0]}, held by another process or left by a killed one; remove it if "
            "nothing is being compiled",
        )
        return
    if not any(builds.glob("**/deepspeed_shm_comm/*.so")):
        yield Finding(
            WARNING,
            f"compiler: DeepSpeed compiles an operation for CPUs before the first step, once, into {builds}; "
            "that takes minutes and prints nothing",
        )
        return
    yield Finding(OK, "compiler: DeepSpeed's operation for CPUs is compiled")


def check_write_permission(config: Config) -> Iterator[Finding]:
    """Look whether the run folder, and the cache folder where there is one, can be written; nothing is."""
    try:
        folder = find_run_folder(config)
    except UserError as error:
        yield Finding(ERROR, str(error))
        return
    if config.cache.dir is not None:
        cache = existing_parent(Path(config.cache.dir))
        if not cache.is_dir() or not os.access(cache, os.W_OK | os.X_OK):
            yield Finding(ERROR, f"cache.dir {config.cache.dir} cannot be written; give another or null")
            return
    state = "finished" if folder.finished else "begun, will be resumed" if folder.path.exists() else "new"
    yield Finding(OK, f"run folder: {folder.path} is {state} and can be written")


def existing_parent(path: Path) -> Path:
    """Return the nearest folder that exists, ``path`` itself included."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def check_checkpoints(folder: Path, launcher: Launcher) -> Iterator[Finding]:
    """Look whether this launcher can read the checkpoints of an unfinished phase, which belong to another if not."""
    for path in sorted(folder.glob("*/step-*")):
        sharded = (path / "pytorch_model").is_dir()
        processes = len(list(path.glob("random_states_*.pkl")))
        if sharded != launcher.deepspeed or (sharded and processes != launcher.processes):
            before = f"DeepSpeed on {_processes(processes)}" if sharded else "a launcher without DeepSpeed"
            yield Finding(ERROR, f"checkpoint {path} was written by {before}; start the run like that again")
            return
    yield Finding(OK, "checkpoints: none that this launcher could not read")


# ---------------------------------------------------------------- with models and data


def check_tokenizers(
    teacher: PreTrainedTokenizerBase,
    others: Mapping[str, PreTrainedTokenizerBase],
    texts: Sequence[tuple[str, ...]],
    whose: str = "the teacher",
) -> Iterator[Finding]:
    """Look whether all models read the same tokens as the teacher, or as who else is named, on texts of the task."""
    samples = [*((probe,) for probe in PROBES), *texts]
    for name, tokenizer in others.items():
        same = len(tokenizer) == len(teacher) and all(
            teacher(*sample)["input_ids"] == tokenizer(*sample)["input_ids"] for sample in samples
        )
        if not same:
            yield Finding(
                ERROR,
                f"tokenizer: {name} reads other tokens than {whose} ({len(tokenizer):,} and {len(teacher):,} "
                f"entries); give a checkpoint with the vocabulary of {whose}",
            )
            return
    names = ", ".join([whose.removeprefix("the "), *others])
    yield Finding(OK, f"tokenizer: {len(teacher):,} entries, the same for {names}")


def check_student(student: nn.Module, examples: TokenizedExamples) -> Iterator[Finding]:
    """Look whether the student's logits are finite, and the same with more padding, on examples of the task."""
    device = next(student.parameters()).device
    indices = np.argsort(examples.lengths, kind="stable")[:PADDING_EXAMPLES]  # short ones leave room for padding
    inputs, _ = collate(examples, indices, device)
    room = positions_of(student) - inputs["input_ids"].shape[1]
    fill = {"input_ids": examples.pad_token_id, "attention_mask": 0, "token_type_ids": 0}
    extra = min(2 * PAD_MULTIPLE, room)
    padded = {name: torch.nn.functional.pad(values, (0, extra), value=fill[name]) for name, values in inputs.items()}
    was_training = student.training
    student.eval()
    with torch.no_grad():
        tight, wide = (student(**each).logits.float() for each in (inputs, padded))
    student.train(was_training)
    if not (torch.isfinite(tight).all() and torch.isfinite(wide).all()):
        yield Finding(ERROR, "student: its outputs are not finite at the start; lower student.initial_temperature")
        return
    difference = float((tight - wide).abs().max() / tight.abs().max().clamp(min=1e-6))
    if difference > PADDING_TOLERANCE:
        yield Finding(
            ERROR,
            f"student: {extra} more tokens of padding change its logits by {100 * difference:.1f} %; "
            "its attention does not mask padding, choose another student.attention",
        )
        return
    yield Finding(OK, f"student: outputs are finite, and the same with {extra} more tokens of padding")


def check_features(mechanism: Any, settings: StudentSettings) -> Iterator[Finding]:
    """Look whether a mechanism was given features that it does not have, as the files of the tasks do.

    Args:
        mechanism: what `distill.config.attention_fit.mechanism_of_student` finds behind ``settings``.
    """
    attention = f"{settings.attention_name} attention"
    if settings.num_features is not None and not mechanism.uses_num_features:
        yield Finding(
            WARNING,
            f"student.num_features {settings.num_features} has no effect: {attention} has no features, "
            "landmarks or slots; null says so",
        )
    if settings.features != "fixed" and not mechanism.has_random_features:
        yield Finding(
            WARNING,
            f"student.features {settings.features} has no effect: {attention} has no random features; fixed says so",
        )


def check_stages(student: PreTrainedModel, stages: Iterable[StageConfig]) -> Iterator[Finding]:
    """Look which stages train something else than they say, because the mechanism has no parameters of its own."""
    for stage in stages:
        if trained_part(student, stage) != stage.train:
            yield Finding(
                WARNING,
                f"stages.{stage.name}.train is features, which {student.config.attention_name} attention has none of; "
                f"its whole attention blocks are trained, at the learning rate {stage.learning_rate:g}",
            )


def check_lengths(stages: Iterable[StageConfig], texts: int) -> Iterator[Finding]:
    """Look which stages end before they can have learned anything.

    Args:
        texts: what a stage reads, copies included.
    """
    for stage in stages:
        rows = PACKED_TEXTS if stage.texts == PACKED else texts
        per_epoch = math.ceil(rows / stage.batch_size)
        steps = math.ceil(per_epoch * stage.epochs)
        if steps < FEWEST_STEPS:
            yield Finding(
                WARNING,
                f"stages.{stage.name}: {steps} steps ({rows:,} texts in batches of {stage.batch_size}, epochs "
                f"{stage.epochs:g}) teach little; give it {math.ceil(FEWEST_STEPS / per_epoch)} epochs, or write "
                "stages: auto",
            )
