"""What the parser says of a key or of a value, in words of a configuration and not of Python."""

import types
import typing

import pytest

from distill.config.parser_messages import _all_keys, in_words
from distill.config.parsing import parse_config
from distill.config.schema import Config
from distill.sweeps.schema import SweepConfig, parse_sweep
from distill.utils.errors import UserError
from students import STUDENTS

STAGE = "name: a, epochs: 1, learning_rate: 1, losses: {logits: 1}"
REFUSED = {
    ("--student.num-layers=2",): "unknown key 'student.num-layers': |did you mean 'student.num_layers'?",
    ("--student.num-layers", "2"): "unknown key 'student.num-layers': |did you mean 'student.num_layers'?",
    (
        "--data.max-lenght=3",
    ): "unknown key 'data.max-lenght': choose one of data.dir, |did you mean 'data.max_length'?",
    ("--run-dir", "x"): "unknown key 'run-dir': choose one of task, |did you mean 'run_dir'?",
    ("--student", "{num-layers: 3}"): "unknown key 'student.num-layers': |did you mean 'student.num_layers'?",
    (f"--stages=[{{{STAGE}, layer-decay: 1}}]",): "key 'stages.layer-decay': |did you mean 'stages.layer_decay'?",
    ("--student.target_speedup", "fast"): "student.target_speedup is 'fast': expected a number or null",
    (
        "--student.num_features",
        "[a]",
    ): "student.num_features is ['a']: expected an integer, a list of integers or null",
    ("--teacher.new_pooler", "perhaps"): "teacher.new_pooler is 'perhaps': expected true, false or null",
    ("--data.regression", "maybe"): "data.regression is 'maybe': expected true or false",
    ("--data.max_length", "long"): "data.max_length is 'long': expected an integer",
    ("--data.max_length", "'5'"): "data.max_length is '5': expected an integer",
    ("--student.num_layers", "null"): "student.num_layers is null: expected an integer",
    ("--comparison.lengths", "[8, x]"): "comparison.lengths holds 'x': expected a list of integers",
    ("--comparison.lengths", "[32"): "comparison.lengths is '[32': expected a list of integers",
    (
        "--student.attention_options",
        "x",
    ): "student.attention_options is 'x': expected names with values ({NAME: VALUE})",
    ("--teacher", "{epochs: x}"): "teacher.epochs is 'x': expected a number or null",
    (f"--stages=[{{{STAGE}, patience: x}}]",): "stages.patience is 'x': expected an integer or null",
    (
        f"--stages=[{{{STAGE}, final_losses: x}}]",
    ): "final_losses is 'x': expected names with numbers ({NAME: 1}) or null",
    ("--student.num_layers",): "--student.num_layers has no value; give one behind it",
    ("stray",): "'stray' is no option; give keys as --KEY VALUE",
}


@pytest.mark.parametrize("override", REFUSED, ids=" ".join)
def test_a_wrong_key_or_value_is_told_in_words(override):
    with pytest.raises(UserError) as refusal:
        parse_config(["--task", "sst2", *override], STUDENTS)
    message = str(refusal.value)
    for part in REFUSED[override].split("|"):
        assert part in message, message
    assert "Union" not in message
    assert "\n" not in message


@pytest.mark.parametrize("schema", [Config, SweepConfig])
def test_every_type_of_a_key_has_words(schema):
    """None is called by what Python says of it, and what may be null says so."""
    for key, kind in _all_keys(schema).items():
        words = in_words(kind)
        assert not {"int", "float", "str", "bool", "dict", "None", "NoneType"} & set(words.replace(",", "").split()), (
            key
        )
        optional = types.NoneType in typing.get_args(kind)
        assert words.endswith("null") == optional, key


OPTIONS = {
    ("performer", "{windo: 4}"): "performer has no option 'windo'; it has: kernel",
    (
        "longformer",
        "{windo: 4}",
    ): "longformer has no option 'windo'; it has: window, global_tokens; did you mean 'window'?",
    ("fnet", "{window: 4}"): "fnet has no option 'window'; it has none, so leave it out",
}


@pytest.mark.parametrize("given", OPTIONS)
def test_an_option_that_a_mechanism_has_not(given):
    attention, options = given
    arguments = ["--task", "sst2", "--student.attention", attention, "--student.attention_options", options]
    with pytest.raises(UserError) as refusal:
        parse_config(arguments, STUDENTS)
    assert str(refusal.value) == f"student.attention_options: {OPTIONS[given]}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "sweep: missing key dir: give it"),
        (["--workerz", "2"], "unknown key 'workerz': choose one of dir, configs, .*did you mean 'workers'"),
        (["--engine-options", "{}"], "unknown key 'engine-options': .*did you mean 'engine_options'"),
        (["--workers", "x"], "sweep: workers is 'x': expected an integer"),
    ],
)
def test_a_sweeps_keys_are_its_own(arguments, words):
    with pytest.raises(UserError, match=words):
        parse_sweep(arguments)
