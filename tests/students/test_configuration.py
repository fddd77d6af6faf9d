"""A student's configuration: what it refuses, and what follows from its sizes."""

import pytest
from helpers.small_students import SIZES

from students import StudentConfig
from students.attention.performer import PerformerAttention


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "perfomer"}, "did you mean 'performer'"),
        ({"attention": "zzz"}, r"choose one of (\w+, )*performer, "),
        ({"attention_options": {"size": 3}}, "attention option 'size' is unknown"),
        ({"features": "learnt"}, "did you mean 'learned'"),
        ({"num_feature": 64}, "did you mean 'num_features'"),
        ({"num_features": 0}, "num_features must be positive"),
        ({"initial_temperature": 0.0}, "initial_temperature must be positive"),
        ({"initial_temperature": float("nan")}, "initial_temperature must be positive"),
        ({"softmax_layers": [2]}, r"softmax_layers \[2\] do not exist: layers are 0 to 1, or -1, the last"),
        ({"softmax_layers": [-3]}, r"softmax_layers \[-3\] do not exist: layers are 0 to 1"),
        ({"hidden_size": 30}, "not a multiple"),
        ({"is_decoder": True}, "encoders"),
        ({"num_features": 10**7}, "num_features must be at most 65,536"),
        ({"num_features": [10**7, 8]}, "num_features must be at most 65,536"),
        ({"num_hidden_layers": 10**7}, "num_hidden_layers must be 1 to 1,000"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be 1 to 1,000"),
    ],
)
def test_configuration_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        StudentConfig(**SIZES | options)


@pytest.mark.parametrize(("head_size", "expected"), [(64, 256), (32, 128), (16, 32), (1, 1)])
def test_default_number_of_features(head_size, expected):
    assert PerformerAttention.default_num_features(head_size) == expected
    assert StudentConfig(hidden_size=2 * head_size, num_attention_heads=2).num_features == expected
