"""Deployments in a record: what is said of each, and which earlier ones stay when a student is exported again."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.records import sample_json, typed
from helpers.small_students import student

from distill.benchmark.timing import TimedPoint
from distill.evaluation.record_parts import DeploymentEntry
from distill.export import deployment_speed
from distill.export.deployment import Deployment, Reference, describe_deployments, with_deployments
from distill.tasks import get_task


def entry(file: str, megabytes: float = 1.0) -> DeploymentEntry:
    return DeploymentEntry("onnx", "float32", file, megabytes, 0.0, {"accuracy": 0.9}, ())


@pytest.mark.parametrize(
    ("removed", "kept"),
    [
        ((), ["a.int8.onnx", "b.onnx", "a.onnx"]),
        (("a.int8.onnx",), ["b.onnx", "a.onnx"]),
        (("a.int8.onnx", "never.onnx"), ["b.onnx", "a.onnx"]),
    ],
)
def test_an_export_replaces_its_own_file_and_those_that_are_gone(removed, kept):
    before = replace(typed(sample_json()), deployments=(entry("a.onnx"), entry("a.int8.onnx"), entry("b.onnx")))
    after = with_deployments(before, [entry("a.onnx", megabytes=2.0)], removed)
    assert [deployment.file for deployment in after.deployments] == kept
    assert after.deployments[-1].megabytes == 2.0


def test_one_thread_is_timed_and_all_that_torch_has(monkeypatch):
    """Each with models that are loaded for it; afterwards torch has what it had."""
    loaded = []

    def load() -> torch.nn.Module:
        loaded.append(torch.get_num_threads())
        return torch.nn.Identity()

    monkeypatch.setattr(deployment_speed, "_time", lambda *arguments: [TimedPoint(1, 8, reason="not tried")])
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        points = deployment_speed.measure_latency(student(), {"float32": load}, [(1, 8)], 0.02)["float32"]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert loaded == [point.threads for point in points] == [1, 3]


def test_what_a_file_keeps_is_counted_against_the_student_in_torch(tmp_path):
    """The student is right in 8 of 10, its file in 6 of these and nowhere else."""
    (tmp_path / "it.onnx").write_bytes(b"a file")
    labels = np.zeros(10, np.int64)
    in_torch, exported = (np.eye(2)[[0] * right + [1] * (10 - right)] for right in (8, 6))
    deployment = Deployment("onnx", "int8", tmp_path / "it.onnx", torch.nn.Identity(), {"validation": exported})
    (found,) = describe_deployments(
        get_task("sst2"), [deployment], {"validation": labels}, {"validation": in_torch}, {"int8": ()}
    )
    assert found.metrics == {"accuracy": 0.6}
    assert found.retention["accuracy"].value == pytest.approx(6 / 8)
    assert found.retention["accuracy"].low < 6 / 8 < found.retention["accuracy"].high <= 1
    assert found.agreement == pytest.approx(0.8)
    assert found.teacher_retention is None
    teacher = np.eye(2)[[0] * 5 + [1] * 5]
    (found,) = describe_deployments(
        *(get_task("sst2"), [deployment], {"validation": labels}, {"validation": in_torch}, {"int8": ()}),
        teacher=Reference({"validation": teacher}),
    )
    assert found.teacher_retention["accuracy"].value == pytest.approx(6 / 5)
    assert found.retention["accuracy"].value == pytest.approx(6 / 8)
