"""Which name a misspelt one is taken for."""

import pytest

from distill.utils.errors import choices_hint, nearest

REQUIREMENTS = ("retention", "speedup", "gain")


@pytest.mark.parametrize(
    ("value", "names", "expected"),
    [
        ("retain", REQUIREMENTS, "retention"),  # `gain` has more letters in common
        ("agin", REQUIREMENTS, "gain"),
        ("speedpu", REQUIREMENTS, "speedup"),
        ("student.layer", ("teacher.layer", "student.layers", "stages.layer"), "student.layers"),
        ("ab", ("ab", "abc"), "ab"),
        (7, ("7a", "b"), "7a"),
        ("zzz", REQUIREMENTS, None),
        ("retzzzzzzz", REQUIREMENTS, None),  # to begin alike alone is not to be near
        ("any", (), None),
    ],
)
def test_the_nearest_name_begins_alike(value, names, expected):
    assert nearest(value, names) == expected


def test_a_hint_without_a_near_name_lists_the_choices_alone():
    assert choices_hint("zzz", REQUIREMENTS) == "choose one of retention, speedup, gain"
