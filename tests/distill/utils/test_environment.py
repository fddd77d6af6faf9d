"""What is written about the machine, and what must never be."""

import json
import platform
from pathlib import Path

import torch

from distill.utils import environment


def test_environment_is_json_and_complete():
    described = environment.describe_environment("cpu")
    assert json.loads(json.dumps(described)) == described
    assert described["torch"] == torch.__version__
    assert described["threads"] == torch.get_num_threads()
    assert described["cores"] >= 1
    assert described["gpu"] is None
    assert described["cpu"]


def test_no_home_user_or_host_name(monkeypatch):
    home = Path.home()
    monkeypatch.setattr("sys.argv", [str(home / "x" / "compare.py"), "--student", str(home / "models" / "student")])
    text = json.dumps(environment.describe_environment("cpu"))
    assert "compare.py --student student" in text
    assert str(home) not in text
    assert platform.node() not in text


def test_paths_in_the_command_are_shortened(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = [str(environment.ROOT / "pipelines" / "compare.py"), f"--output={tmp_path}/out", "--task", "a b"]
    assert environment.command_line(arguments) == "python pipelines/compare.py --output=out --task 'a b'"
    assert environment.command_line([f"{tmp_path}/bin/distill-compare", "--task"]) == "bin/distill-compare --task"
    assert environment.without_private_paths("/somewhere/else/model") == "model"
    assert environment.without_private_paths("configs/sst2.yaml") == "configs/sst2.yaml"
    assert environment.without_private_paths("--student.num_layers=3") == "--student.num_layers=3"


def test_outside_a_checkout_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert environment._commit() == (None, None)
