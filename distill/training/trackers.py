"""Where a run is watched: TensorBoard and the other trackers of ``trackers``, through accelerate."""

import dataclasses
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from distill.config.schema import TENSORBOARD, Config
from distill.utils.errors import UserError, first_line
from distill.utils.files import read_object, write_atomically

PROJECT = "bert-distill"
"""What the runs are gathered under in a tracker that serves many."""
ONE_COUNTER = ("wandb", "trackio", "swanlab")
"""Trackers that refuse a step below one they have seen, while every stage here counts its own: these get the step as
a figure, and count by themselves."""
IDENTITY = Path("checkpoints") / "trackers.json"
"""Where a run keeps the name under which a tracker continues it."""


def start_trackers(accelerator: Accelerator, config: Config) -> None:
    """Open every tracker, with the flattened configuration as its hyperparameters; TensorBoard in the run folder.

    Raises:
        UserError: a tracker does not start, as where nobody is logged in to its service.
    """
    if not accelerator.is_main_process:
        return
    values = flatten(dataclasses.asdict(config))
    wanted, started = [str(name) for name in accelerator.log_with], []
    for name in wanted:
        # One at a time, because accelerate gives all of them the same project, and TensorBoard's is its folder.
        accelerator.log_with, accelerator.trackers = [name], []
        project = TENSORBOARD if name == TENSORBOARD else PROJECT
        try:
            accelerator.init_trackers(project, config=values, init_kwargs={name: run_settings(name, config)})
        except Exception as error:  # every service fails in a way of its own
            if name == TENSORBOARD:
                raise
            raise UserError(
                f"trackers: {name} did not start: {first_line(error)}; log in to it, or leave it out of trackers"
            ) from error
        started += accelerator.trackers
    accelerator.log_with, accelerator.trackers = wanted, started


def run_settings(tracker: str, config: Config) -> dict[str, Any]:
    """Return how a tracker calls this run, and by what it knows it again when the run is resumed."""
    assert config.run_dir is not None
    name = Path(config.run_dir).resolve().name
    if tracker == "mlflow":
        return {"run_name": name}
    if tracker == "swanlab":
        return {"experiment_name": name}
    if tracker == "trackio":
        return {"name": f"{name}-{run_identity(Path(config.run_dir))}", "resume": "allow"}
    if tracker == "wandb":
        return {"name": name, "id": run_identity(Path(config.run_dir)), "resume": "allow"}
    return {}


def run_identity(run_dir: Path) -> str:
    """Return a short name that no other run has, made when the run is first tracked."""
    path = run_dir / IDENTITY
    if not path.exists():
        write_atomically(path, json.dumps({"id": uuid.uuid4().hex[:8]}) + "\n")
    return str(read_object(path, "remove it; the tracker then begins a new run").get("id"))


def log_figures(accelerator: Accelerator, values: Mapping[str, float], step: int) -> None:
    """Send figures of the same stage to all trackers.

    Args:
        accelerator: of the run.
        values: by name, ``<stage>/<figure>``.
        step: of the stage, which counts from 0.
    """
    for tracker in accelerator.trackers:
        if tracker.name in ONE_COUNTER:
            stages = {name.partition("/")[0] for name in values}
            tracker.log({**values, **{f"{stage}/step": step for stage in stages}})
        else:
            tracker.log(dict(values), step=step)


def log_picture(accelerator: Accelerator, name: str, picture: np.ndarray) -> None:
    """Show a picture (H, W, 3) in every tracker that shows pictures."""
    for tracker in accelerator.trackers:
        if tracker.name == TENSORBOARD:
            tracker.log_images({name: picture[None]}, step=0, dataformats="NHWC")
        elif tracker.name in ONE_COUNTER and hasattr(tracker, "log_images"):
            tracker.log_images({name: [picture]})


def flush_trackers(accelerator: Accelerator) -> None:
    """Write out what trackers still keep in memory, as TensorBoard does for two minutes."""
    for tracker in accelerator.trackers:
        flush = getattr(tracker.tracker, "flush", None)
        if callable(flush):
            flush()


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a configuration to dotted keys with scalar values: TensorBoard's hparams refuse lists and None."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, int | float | str | bool) else str(value)
    return flat
