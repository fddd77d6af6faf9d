"""Every shipped configuration is good, and every bad one is refused in one line that says what to do."""

import json
import os
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import yaml

from distill.config.parsing import differing_keys, load_config, parse_config, save_config
from distill.config.schema import StageConfig
from distill.utils.errors import UserError
from students import STUDENTS

ROOT = Path(__file__).resolve().parents[3]
TASKS = sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))
PRESETS = sorted(path.name for path in (ROOT / "configs" / "students").glob("*.yaml"))

GOOD = """
task: sst2
stages:
  - {name: one, epochs: 1, learning_rate: 1e-3, losses: {attention_output: 1}}
  - {name: two, epochs: 2, learning_rate: 1e-4, losses: {logits: 0.9, labels: 0.1}}
"""


def stages(**changes: object) -> str:
    """Return an override with one stage, as YAML in one line."""
    stage = {"name": "one", "epochs": 1, "learning_rate": 0.001, "losses": {"logits": 1.0}} | changes
    kept = {key: value for key, value in stage.items() if value is not None}
    return f"--stages=[{yaml.safe_dump(kept, default_flow_style=True, width=10_000).strip()}]"


@pytest.fixture
def parse(tmp_path):
    """Return a function that parses a good configuration with overrides."""
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return lambda *overrides: parse_config(["--config", str(path), *overrides], STUDENTS)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_file_is_good(name):
    path = ROOT / "configs" / name
    data = ["--data.dir", "texts.csv"] if name == "custom.yaml" else []
    config = parse_config(["--config", str(path), *data], STUDENTS)
    assert config.run_dir == f"runs/{path.stem}"
    assert config.training.mixed_precision == "auto", "no file asks for what a processor may have to emulate"
    assert config.task == {"demo.yaml": "sst2", "general.yaml": "text"}.get(name, path.stem)
    assert f"configs/{name}" in path.read_text(), "the header names the command"


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_merges_into_a_task_file(name):
    preset = ROOT / "configs" / "students" / name
    arguments = ["--config", str(ROOT / "configs" / "sst2.yaml")]
    config = parse_config([*arguments, "--student", str(preset)], STUDENTS)
    for key, value in yaml.safe_load(preset.read_text()).items():
        assert getattr(config.student, key) == value
    changed = differing_keys(config, parse_config(arguments, STUDENTS))
    assert all(key.startswith("student.") for key in changed)


@pytest.mark.parametrize("as_file", [True, False])
def test_a_later_list_of_stages_replaces_the_earlier_one_whole(as_file, parse, tmp_path):
    first = parse()
    stages = [
        {"name": stage.name, "epochs": 1, "learning_rate": 0.1, "losses": {"labels": 1.0}} for stage in first.stages
    ]
    (tmp_path / "later.yaml").write_text(yaml.safe_dump({"stages": stages}))
    later = ["--config", str(tmp_path / "later.yaml")] if as_file else [f"--stages={json.dumps(stages)}"]
    expected = tuple(StageConfig(stage.name, 1, 0.1, {"labels": 1.0}) for stage in first.stages)
    assert parse(*later).stages == expected
    assert first.stages != expected


def test_values_have_their_types(parse):
    config = parse("--student.num_layers", "6", "--teacher.checkpoint=null", "--student.layer_map=[0,1,2,3,4,11]")
    assert config.student.num_layers == 6
    assert config.student.layer_map == [0, 1, 2, 3, 4, 11]
    assert config.teacher.checkpoint is None
    assert config.stages[0].learning_rate == 0.001
    assert isinstance(config.stages[1], StageConfig)
    assert config.run_dir == "runs/sst2"
    with pytest.raises(FrozenInstanceError):
        config.seed = 1


def test_of_several_files_the_later_wins(parse, tmp_path):
    (tmp_path / "more.yaml").write_text("seed: 5\nstudent: {num_layers: 2}\n")
    config = parse("--config", str(tmp_path / "more.yaml"))
    assert (config.seed, config.student.num_layers, config.task) == (5, 2, "sst2")


REFUSED = {
    "--studnt.num_layers=3": "unknown key 'studnt.num_layers'|choose one of task, |did you mean 'student.num_layers'?",
    "--student.atention=softmax": "student.num_layers, |did you mean 'student.attention'?",
    "--data.max_lenght=3": "data.dir, data.max_length|did you mean 'data.max_length'?",
    "--teacher.scratch.hiden_size=3": "did you mean 'teacher.scratch.hidden_size'?",
    "--training.warmpu=0.1": "did you mean 'training.warmup'?",
    "--student.num_layers=three": "student.num_layers is 'three': expected an integer",
    "--student.num_layers=2.5": "student.num_layers is 2.5: expected an integer",
    "--training.warmup=much": "training.warmup is 'much': expected a number",
    "--seed=true": "seed is true: expected an integer",
    "--stages={name: a}": "stages|list",
    "--task=sst": "task is 'sst'|cola, sst2|did you mean 'sst2'?",
    "--student.attention=performr": "student.attention|performer|softmax|did you mean 'performer'?",
    "--student.features=learnd": "student.features|fixed, redrawn, learned|did you mean 'learned'?",
    "--student.layer_map=evn": "student.layer_map|even, first, last|did you mean 'even'?",
    "--student.layer_map=[0, 1]": "student.layer_map is [0, 1]|student.num_layers = 3",
    "--student.softmax_layers=[3]": "student.softmax_layers|0 to 2",
    "--student.initial_temperature=calibratd": "student.initial_temperature|did you mean 'calibrated'?",
    "--student.initial_temperature=-1": "student.initial_temperature is -1|above 0",
    "--student.num_layers=0": "student.num_layers is 0|above 0",
    "--data.max_train_examples=0": "data.max_train_examples is 0|above 0",
    "--data.max_length=4": "data.max_length is 4|at least 8",
    "--data.held_out_fraction=0.5": "data.held_out_fraction is 0.5",
    "--data.text_columns=[a]": "task custom",
    "--teacher.scratch.num_heads=3": "teacher.scratch.num_heads is 3|hidden_size 128",
    "--teacher.epochs=0": "teacher.epochs is 0",
    "--teacher.layer_decay=1.5": "teacher.layer_decay is 1.5",
    "--augmentation.copies=-1": "augmentation.copies is -1",
    "--augmentation.kinds=[swap]": "augmentation.kinds is 'swap'|replace, masked_lm, cut, mix",
    "--augmentation.kinds=[]": "augmentation.kinds is []|at least one of replace",
    "--augmentation.share=1": "augmentation.share is 1|between 0 and 1",
    "--augmentation.tasks=[sst3]": "augmentation.tasks is 'sst3'|one of cola, mrpc",
    "--augmentation.candidates=0": "augmentation.candidates is 0|above 0",
    "--training.mixed_precision=fp8": "training.mixed_precision|no, bf16, fp16",
    "--training.warmup=1": "training.warmup is 1",
    "--training.gradient_accumulation=0": "training.gradient_accumulation is 0",
    "--training.checkpoint_every=0": "training.checkpoint_every is 0",
    "--comparison.dtype=float64": "comparison.dtype|float32, bfloat16, float16",
    "--comparison.lengths=[0]": "comparison.lengths is [0]",
    "--cache.max_gigabytes=-1": "cache.max_gigabytes is -1",
    "--hub.repo=https://huggingface.co/me/student": "hub.repo is 'https|such as me/my-student",
    "--hub.repo=me/my--student": "hub.repo is 'me/my--student'",
    "--hub.repo=me/student.git": "hub.repo is 'me/student.git'",
    "--hub.repo=me/": "hub.repo is 'me/'",
    "--trackers=[wandbb]": "trackers is 'wandbb'|tensorboard, |did you mean 'wandb'?",
    "--trackers=[wandb, wandb]": "trackers is ['wandb', 'wandb']|name each of them once",
    stages(loss={"logits": 1}): "unknown key 'stages.loss'|stages.losses|did you mean 'stages.losses'?",
    stages(epochs=None): "missing key stages.epochs|every stage",
    stages(epochs="x"): "stages.epochs is 'x': expected a number",
    stages(epochs=0): "stages.one.epochs is 0",
    stages(losses={"logit": 1.0}): "stages.one.losses|attention_output, |did you mean 'logits'?",
    stages(attention="linear"): "stages.one.attention is 'linear'|softmax",
    stages(targets="softmax_student"): "stages.targets is 'softmax_student'|no stage with attention: softmax",
    stages(attention="softmax", targets="softmax_student"): "stages.one.targets|works only after such a stage",
    "--student.attention=lstm": "stages.one.losses|attention_output|lstm keeps its layers|use logits or labels",
    stages(losses={"compression": 1.0}): "stages.one.losses|compression|performer attention has none; leave it out",
    stages(losses={"logits": 0.0}): "stages.one.losses.logits is 0.0|above 0",
    stages(losses={}): "stages.one.losses|at least one of attention_output",
    stages(losses=["logits"]): "stages.losses is ['logits']: expected names with numbers",
    stages(train="everything"): "stages.one.train|features, attention, head, encoder, all",
    stages(inputs="teachr"): "stages.one.inputs|did you mean 'teacher'?",
    stages(inputs="teacher"): "stages.one.inputs|works only with the losses attention_context",
    stages(last_layer="first"): "stages.one.last_layer|did you mean 'first_token'?",
    stages(
        last_layer="first_token", losses={"value_relations": 1.0}
    ): "stages.one.last_layer|attention_context, attention_out",
    stages(patience=0): "stages.one.patience is 0",
    stages(average_epochs=0): "stages.one.average_epochs is 0",
    stages(average_epochs=2, keep_best_epoch=True): "stages.one.average_epochs is 2|keep_best_epoch",
    stages(final_temperature=0.0): "stages.one.final_temperature is 0.0",
    stages(final_losses={"labels": 1.0}): "stages.one.final_losses is 'labels'|only losses of the stage",
    stages(final_losses={"logits": -1.0}): "stages.one.final_losses.logits is -1.0|0 or more",
    stages(temperature=0.0): "stages.one.temperature is 0.0",
    stages(name="a/b"): "stages.name is 'a/b'",
    stages(name="baseline"): "stages.name is 'baseline'|taken",
    "--task=custom": "data.dir|task custom",
    "--seed=-1": "seed is -1|0 to 4294967295",
    "--data.seed=4294967296": "data.seed is 4294967296",
    "--teacher.learning_rate=.nan": "teacher.learning_rate is nan|finite",
    "--baseline.learning_rate=0": "baseline.learning_rate is 0",
    "--training.weight_decay=-0.1": "training.weight_decay is -0.1",
    "--data.max_length=1000000": "data.max_length is 1000000|131,072",
    "--run_dir=a\tb": "run_dir is 'a\\tb'|control characters",
    "--run_dir=a\udc80": "run_dir is|UTF-8",
    "--teacher.epochs=99999999999999999999": "teacher.epochs|smaller",
    stages(name="../up"): "stages.name is '../up'",
    stages(name="/etc/stage"): "stages.name is '/etc/stage'",
    stages(name="teacher_outputs"): "stages.name is 'teacher_outputs'|taken",
    stages(name="a" * 101): "stages.name|at most 100",
    "--data={max_length: 9, max_length: 10}": "key 'max_length' stands twice",
    "--data=" + "[" * 100_000: "nested more than 20 levels",
    "--data=null": "data is null: give it keys",
    "--teacher.scratch=null": "teacher.scratch is null: give it keys",
    "nonsense": "nonsense",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_cannot_work_is_refused_in_one_line(override, parse):
    with pytest.raises(UserError) as refusal:
        parse(override)
    message = str(refusal.value)
    for part in REFUSED[override].split("|"):
        assert part in message, message
    assert "\n" not in message


def test_two_stages_of_one_name_are_refused(parse):
    stage = "{name: same, epochs: 1, learning_rate: 1e-3, losses: {labels: 1}}"
    with pytest.raises(UserError, match="name of its own"):
        parse(f"--stages=[{stage}, {stage}]")


def test_custom_needs_columns_and_not_both_kinds_of_label(parse):
    custom = ["--task=custom", "--data.dir=/somewhere"]
    assert parse(*custom, "--data.text_columns=[a, b]").data.text_columns == ["a", "b"]
    assert parse(*custom, "--data.text_columns=ab").data.text_columns == ["ab"]
    assert parse(*custom).data.text_columns is None
    with pytest.raises(UserError, match=r"data\.text_columns"):
        parse(*custom, "--data.text_columns=[a, b, c]")
    with pytest.raises(UserError, match=r"data\.label_names"):
        parse(*custom, "--data.text_columns=[a]", "--data.regression=true", "--data.label_names=[x, y]")


def test_a_missing_file_and_missing_keys_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        parse_config(["--config", str(tmp_path / "nowhere.yaml")], STUDENTS)
    with pytest.raises(UserError, match="missing key task"):
        parse_config([], STUDENTS)


@pytest.mark.parametrize(
    "written", [[], ["--stages=auto"], ["--stages", "auto"], ["--stages=[]"], ["--config", "FILE"]]
)
def test_stages_that_are_chosen_from_the_data(written, tmp_path):
    file = tmp_path / "auto.yaml"
    file.write_text("stages: auto\n")
    arguments = [str(file) if argument == "FILE" else argument for argument in written]
    assert parse_config(["--task", "sst2", *arguments], STUDENTS).stages == ()


def test_a_configuration_is_read_back_as_it_was_written(parse, tmp_path):
    config = parse("--student.layer_map=[0,1,2]", "--student.initial_temperature=0.5", "--data.dir=Größe 1")
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == config
    assert parse_config(["--config", str(tmp_path / "saved.yaml")], STUDENTS) == config


def test_differing_keys_are_dotted(parse):
    one = parse()
    other = parse("--seed=1", "--student.num_layers=2", "--teacher.scratch.num_heads=2")
    assert differing_keys(one, other) == ["seed", "student.num_layers", "teacher.scratch.num_heads"]
    assert differing_keys(one, one) == []
    shorter = replace(one, stages=one.stages[:1])
    assert differing_keys(one, shorter) == ["stages"]


@pytest.mark.parametrize("script", ["distill.py", "finetune_teacher.py"])
def test_help_names_the_keys(script):
    environment = os.environ | {"COLUMNS": "200"}
    command = [sys.executable, str(ROOT / "pipelines" / script), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert result.returncode == 0, result.stderr
    for key in ("--config", "--student.num_layers", "--training.warmup", "--run_dir"):
        assert re.search(rf"^\s+{key}\b", result.stdout, re.MULTILINE), key
