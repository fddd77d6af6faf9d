"""The changes that ``tests/mutation.py`` makes."""

import ast

import pytest
from mutation import ROOT, TESTS, changes

CHANGES = {
    "a + b": ["a - b"],
    "a < b": ["a <= b"],
    "a and b": ["a or b"],
    "not a": ["a"],
    "a - 1": ["a + 1", "a - 2"],
    "x.clamp(a)": ["x"],
    "a if b else c": ["c"],
    "f(True)": ["f(False)"],
    "'text'": [],
}


@pytest.mark.parametrize("source", CHANGES)
def test_every_operator_constant_and_call_is_changed_once(source):
    made = []
    for number in range(len(list(changes(ast.parse(f"y = {source}"))))):
        tree = ast.parse(f"y = {source}")
        list(changes(tree))[number].make()
        made.append(ast.unparse(tree).removeprefix("y = "))
    assert sorted(made) == sorted(CHANGES[source])


def test_a_call_that_stands_alone_is_left_out_and_a_type_stays():
    source = "def f(x: Literal[1]) -> Literal[2]:\n    clip(x)\n    x += y"
    made = []
    for number in range(len(list(changes(ast.parse(source))))):
        tree = ast.parse(source)
        list(changes(tree))[number].make()
        made.append(ast.unparse(tree))
    assert made == [source.replace("clip(x)", "pass"), source.replace("+=", "-=")]


def test_every_module_and_its_tests_exist():
    for module, tests in TESTS.items():
        assert (ROOT / module).is_file(), module
        assert all((ROOT / "tests" / name).exists() for name in tests), module
