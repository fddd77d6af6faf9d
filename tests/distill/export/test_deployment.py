"""Deployments in a record: which of the earlier ones stay when a student is exported again."""

from dataclasses import replace

import pytest
from helpers.records import sample_json, typed

from distill.evaluation.record_parts import DeploymentEntry
from distill.export.deployment import with_deployments


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
