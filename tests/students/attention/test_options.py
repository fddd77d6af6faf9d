"""Options of mechanisms: every value that cannot be is refused in one line, before a layer is made."""

import pytest
from helpers.small_students import SIZES

from students import ATTENTIONS, StudentConfig, StudentForSequenceClassification
from students.attention.options import LARGEST, resolve

NUMBERS = [
    (name, option)
    for name, attention in ATTENTIONS.items()
    for option, default in attention.options.items()
    if type(default) is int
]
CHOICES = [(name, option) for name, mechanism in ATTENTIONS.items() for option in mechanism.options]


def refusal(name, options, **sizes):
    with pytest.raises(ValueError, match="attention option") as refused:
        StudentConfig(**SIZES | sizes, attention=name, attention_options=options)
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("value", [-3, "4", "foo", 4.0, float("nan"), True, [4], {}, 10**12])
@pytest.mark.parametrize(("name", "option"), NUMBERS)
def test_a_number_that_cannot_be(name, option, value):
    message = refusal(name, {option: value})
    assert f"attention option {option} must be a whole number from " in message
    assert message.endswith(f"got {value!r}")


@pytest.mark.parametrize("value", ["foo", 3, 1.5, [], {"a": 1}])
@pytest.mark.parametrize(("name", "option"), [case for case in CHOICES if case not in NUMBERS])
def test_a_choice_that_there_is_not(name, option, value):
    message = refusal(name, {option: value})
    assert repr(value) in message
    assert ("choose one of" in message) or ("true or false" in message)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_an_option_that_there_is_not(name):
    assert "attention option 'no_such' is unknown" in refusal(name, {"no_such": 3})


def test_the_nearest_option_is_named():
    assert refusal("longformer", {"windw": 3}).endswith("did you mean 'window'?")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("transformer_xl", {"segment": 3, "memory": 4}, "memory must be a multiple of the segment, got 4 and 3"),
        ("transformer_xl", {"segment": 0}, "segment must be a whole number from 1 to"),
        ("compressive", {"segment": 3, "memory": 4}, "must fit the segment of 3"),
        ("compressive", {"segment": 4, "memory": 6, "rate": 2, "compressed": 2}, "memory must be a multiple"),
        ("nystrom", {"convolution": 4}, "convolution must be odd, or 0 for none, got 4"),
        ("reformer", {"buckets": 3}, "buckets must be even, got 3"),
        ("sparse", {"stride": 3}, "summary_tokens must be 1 to the stride, 3, got 4"),
        ("scaling", {"modules": 5}, "modules 5 must divide hidden_size 32"),
        ("scaling", {"modules": 8, "feed_forward_block": 5}, "feed_forward_block 5 must divide intermediate_size 64"),
    ],
)
def test_options_that_do_not_fit_each_other_or_the_model(name, options, message):
    assert message in refusal(name, options)


def test_heads_that_cannot_be_halved():
    with pytest.raises(ValueError, match="num_attention_heads 1 is odd"):
        StudentConfig(**SIZES | {"num_attention_heads": 1}, attention="lsra")


@pytest.mark.parametrize(("name", "option"), NUMBERS)
def test_the_highest_number_makes_no_huge_layer(name, option):
    """By itself; the lowest one is 0 or 1."""
    highest = ATTENTIONS[name].limits.get(option, (0, LARGEST))[1]
    try:
        config = StudentConfig(**SIZES, attention=name, attention_options={option: highest})
    except ValueError:
        return  # it does not fit the others
    model = StudentForSequenceClassification(config)
    bytes_held = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert bytes_held < 2**26


def test_all_types_of_options():
    options = {"size": 2, "share": 0.5, "gate": False, "kind": ("a", "b"), "name": "x"}
    assert resolve(options, {}, {}) == {"size": 2, "share": 0.5, "gate": False, "kind": "a", "name": "x"}
    given = {"size": 3, "share": 1, "gate": True, "kind": "b", "name": "y"}
    assert resolve(options, {}, given) == given
    assert isinstance(resolve(options, {}, given)["share"], float)
    for wrong in ({"share": "1"}, {"gate": 1}, {"name": 1}, {"share": float("inf")}):
        with pytest.raises(ValueError, match="must be"):
            resolve(options, {}, wrong)
