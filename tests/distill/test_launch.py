"""The configuration as TensorBoard's hparams take it."""

import dataclasses

import torch
from accelerate import Accelerator

from distill.config import Config, StageConfig
from distill.launch import autocast_dtype, flatten


def test_flatten():
    nested = {"a": {"b": {"c": 1, "d": None}, "e": [1, 2]}, "f": 0.5, "g": True, "h": "x", "i": {}}
    assert flatten(nested) == {"a.b.c": 1, "a.b.d": "None", "a.e": "[1, 2]", "f": 0.5, "g": True, "h": "x"}


def test_a_whole_configuration_becomes_scalars():
    config = Config("sst2", (StageConfig("one", 1, 0.1, {"logits": 1.0}),))
    flat = flatten(dataclasses.asdict(config))
    assert flat["student.num_layers"] == 3
    assert flat["teacher.scratch.hidden_size"] == 128
    assert "logits" in flat["stages"]
    assert all(isinstance(value, int | float | str | bool) for value in flat.values())


def test_precision_of_inference_during_training(make_accelerator):
    accelerator: Accelerator = make_accelerator()
    assert autocast_dtype(accelerator) is None
    accelerator.state._mixed_precision = "bf16"
    assert autocast_dtype(accelerator) is torch.bfloat16
