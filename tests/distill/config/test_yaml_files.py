"""A configuration's YAML: read as it is written, and refused where it is none or does more than configure."""

import pytest

from distill.config.parsing import parse_config
from distill.config.yaml_files import text_at
from distill.utils.errors import UserError
from students import STUDENTS

GOOD = "task: sst2\n"


@pytest.mark.parametrize("content", ["task: [sst2\n", "just text\n", ""])
def test_a_file_that_is_no_configuration_is_refused_in_one_line(content, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as refusal:
        parse_config(["--config", str(path)], STUDENTS)
    assert "\n" not in str(refusal.value)


BOMB = "".join(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 9) if i else 'x'}]\n" for i in range(10))
TRAPS = {
    BOMB: "aliases for more than",
    "data: &d {dir: *d}\n": "aliases for more than",
    "data: " + "[" * 1_000_000: "nested more than",
    "seed: 1\nseed: 2\n": "line 3: key 'seed' stands twice",
    "data.seed: 1\ndata: {seed: 2}\n": "key 'data.seed' stands twice, in two spellings",
    "teacher: {scratch.num_heads: 2, scratch: {num_heads: 2}}\n": "'teacher.scratch.num_heads' stands twice",
    "run_dir: !!python/object/apply:os.mkdir [HERE]\n": "python/object/apply",
    "data: {class_path: spy.Spy}\n": "class_path",
    "data: spy.Spy\n": "data is 'spy.Spy'",
    "teacher: {scratch: spy.Spy}\n": "scratch is 'spy.Spy'",
    "---\nseed: 3\n": "single document",
    "seed: null\n": "seed is null: give it a value, or leave it out",
    "data:\n": "data is null: give it keys, or leave it out",
    "teacher: {scratch: []}\n": "teacher.scratch is []",
}


@pytest.mark.parametrize("text", TRAPS, ids=range(len(TRAPS)))
def test_yaml_that_does_more_than_configure_is_refused(text, tmp_path, monkeypatch):
    """Nothing is made or imported, nothing takes long."""
    (tmp_path / "spy.py").write_text("raise SystemExit('this was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "trap.yaml"
    path.write_text(GOOD + text.replace("HERE", str(tmp_path / "made")))
    with pytest.raises(UserError) as refusal:
        parse_config(["--config", str(path)], STUDENTS)
    assert TRAPS[text] in str(refusal.value)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "encode", [lambda text: text.encode("utf-8-sig"), lambda text: text.replace("\n", "\r\n").encode()]
)
def test_a_byte_order_mark_and_line_ends_of_windows_are_read(encode, tmp_path):
    path = tmp_path / "Größe 🚀.yaml"
    path.write_bytes(encode(GOOD))
    assert parse_config(["--config", str(path)], STUDENTS).task == "sst2"


@pytest.mark.parametrize("content", [b"\xff\xfet\x00", "run_dir: Größe\n".encode("latin-1"), b"task: a\0"])
def test_a_file_that_is_not_utf8_is_refused(content, tmp_path):
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.yaml"):
        parse_config(["--config", str(tmp_path / "bad.yaml")], STUDENTS)


def test_anchors_are_read(tmp_path):
    (tmp_path / "good.yaml").write_text(
        GOOD + "student: &small {num_layers: 2}\nbaseline: {epochs: &two 2}\nseed: *two\n"
    )
    config = parse_config(["--config", str(tmp_path / "good.yaml")], STUDENTS)
    assert (config.student.num_layers, config.baseline.epochs, config.seed) == (2, 2, 2)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hub: {repo: me/a}\n", "me/a"),
        ("hub.repo: me/a\n", "me/a"),
        ("hub: {repo: null}\n", None),
        ("hub: {repo: [me/a]}\n", None),
        ("hub: {private: true}\n", None),
        ("hub: [\n", None),
        (BOMB, None),
        ("", None),
    ],
)
def test_the_text_at_a_key(text, found, tmp_path):
    (tmp_path / "run.yaml").write_text(text)
    assert text_at(tmp_path / "run.yaml", "hub.repo") == found
