"""Trackers get every figure, each as it can take it, and one that is not there is named before anything is trained."""

import dataclasses

import numpy as np
import pytest
from accelerate import tracking
from accelerate.tracking import GeneralTracker
from accelerate.utils import LoggerType, ProjectConfiguration
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distill.config.choices import TRACKERS
from distill.config.schema import Config, StageConfig
from distill.preflight.services import check_trackers
from distill.training.trackers import flatten, flush_trackers, log_figures, log_picture, run_settings, start_trackers
from distill.utils.errors import UserError


def test_flatten():
    nested = {"a": {"b": {"c": 1, "d": None}, "e": [1, 2]}, "f": 0.5, "g": True, "h": "x", "i": {}}
    assert flatten(nested) == {"a.b.c": 1, "a.b.d": "None", "a.e": "[1, 2]", "f": 0.5, "g": True, "h": "x"}


def test_a_whole_configuration_becomes_scalars():
    config = Config("sst2", stages=(StageConfig("one", 1, 0.1, {"logits": 1.0}),))
    flat = flatten(dataclasses.asdict(config))
    assert flat["student.num_layers"] == 3
    assert flat["teacher.scratch.hidden_size"] == 128
    assert "logits" in flat["stages"]
    assert all(isinstance(value, int | float | str | bool) for value in flat.values())


def test_the_names_are_those_of_accelerate():
    assert set(TRACKERS) == {str(name) for name in LoggerType} - {"all"}


class StandIn(GeneralTracker):
    """Takes note of what it is told, as a tracker whose runs have one counter."""

    name = "wandb"
    requires_logging_directory = False
    started: list["StandIn"] = []  # noqa: RUF012  # of the class

    def __init__(self, project, **settings):
        super().__init__()
        self.project, self.settings, self.lines, self.values = project, settings, [], {}

    def start(self):
        self.started.append(self)

    @property
    def tracker(self):
        return object()

    def store_init_configuration(self, values):
        self.values = values

    def log(self, values, step=None, **more):
        self.lines.append((step, values))

    def log_images(self, values, step=None, **more):
        self.lines.append((step, {name: np.asarray(pictures[0]).shape for name, pictures in values.items()}))


class ManyCounters(StandIn):
    """A tracker that takes any step."""

    name = "mlflow"
    started: list["StandIn"] = []  # noqa: RUF012


@pytest.fixture
def stand_ins(monkeypatch):
    """Let both names stand for trackers that are installed."""
    for kind in (StandIn, ManyCounters):
        monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, kind.name, kind)
        monkeypatch.setattr(kind, "started", [])
    names = [LoggerType("tensorboard"), LoggerType("wandb"), LoggerType("mlflow")]
    monkeypatch.setattr(tracking, "_available_trackers", names)


def start(make_accelerator, run_dir, trackers):
    (run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
    config = Config("sst2", run_dir=str(run_dir), trackers=trackers)
    places = ProjectConfiguration(project_dir=str(run_dir), logging_dir=str(run_dir))
    accelerator = make_accelerator(log_with=list(trackers) or None, project_config=places)
    start_trackers(accelerator, config)
    return accelerator


def test_every_tracker_gets_every_figure(make_accelerator, tmp_path, stand_ins):
    run_dir = tmp_path / "reviews"
    accelerator = start(make_accelerator, run_dir, ["tensorboard", "wandb", "mlflow"])
    for stage, step in (("layers", 3), ("layers", 6), ("logits", 2)):
        log_figures(accelerator, {f"{stage}/loss": 0.5}, step)
    log_picture(accelerator, "speed", np.zeros((4, 6, 3), np.float32))
    flush_trackers(accelerator)
    (one,), (many,) = StandIn.started, ManyCounters.started
    # The second stage starts again at a lower step, which a tracker with one counter would drop.
    assert one.lines == [
        (None, {"layers/loss": 0.5, "layers/step": 3}),
        (None, {"layers/loss": 0.5, "layers/step": 6}),
        (None, {"logits/loss": 0.5, "logits/step": 2}),
        (None, {"speed": (4, 6, 3)}),
    ]
    assert many.lines == [(3, {"layers/loss": 0.5}), (6, {"layers/loss": 0.5}), (2, {"logits/loss": 0.5})]
    assert one.project == many.project == "bert-distill"
    assert one.values["student.num_layers"] == many.values["student.num_layers"] == 3
    assert many.settings == {"run_name": "reviews"}
    accelerator.end_training()
    events = EventAccumulator(str(run_dir / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("layers/loss")] == [3, 6]
    assert [event.step for event in events.Scalars("logits/loss")] == [2]
    assert events.Tags()["images"] == ["speed"]


def test_a_resumed_run_is_the_same_one_and_another_is_not(make_accelerator, tmp_path, stand_ins):
    names = []
    for run_dir in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        start(make_accelerator, run_dir, ["wandb"])
        names.append(StandIn.started[-1].settings)
    assert names[0] == names[1] == {"name": "a", "id": names[0]["id"], "resume": "allow"}
    assert names[2]["id"] != names[0]["id"]


def test_no_tracker_at_all(make_accelerator, tmp_path):
    accelerator = start(make_accelerator, tmp_path / "run", [])
    log_figures(accelerator, {"layers/loss": 0.5}, 3)
    log_picture(accelerator, "speed", np.zeros((4, 6, 3), np.float32))
    flush_trackers(accelerator)
    assert list((tmp_path / "run").rglob("*")) == [tmp_path / "run" / "checkpoints"]
    assert run_settings("tensorboard", Config("sst2", run_dir=str(tmp_path))) == {}


def test_a_tracker_that_does_not_start_is_one_line(make_accelerator, tmp_path, stand_ins, monkeypatch):
    def refuse(self):
        raise RuntimeError("no API key\nand much more")

    monkeypatch.setattr(StandIn, "start", refuse)
    with pytest.raises(UserError, match=r"^trackers: wandb did not start: no API key; log in to it, or leave it out"):
        start(make_accelerator, tmp_path / "run", ["wandb"])


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(tracking, "_available_trackers", [LoggerType("tensorboard")])
    (finding,) = check_trackers(Config("sst2", trackers=["wandb", "tensorboard", "mlflow"]))
    assert (finding.level, "pip install wandb mlflow" in finding.line) == ("error", True)
    assert list(check_trackers(Config("sst2"))) == []
    assert list(check_trackers(Config("sst2", trackers=[]))) == []
