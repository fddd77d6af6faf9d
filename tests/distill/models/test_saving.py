"""A saved model stands alone: its tokenizer fits its positions, and nothing of its origin is left to run."""

import json

import pytest
from helpers.tiny_bert import tiny_bert
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, pipeline

import students
from distill.data.tokenization import train_tokenizer
from distill.tasks import get_task
from distill.training.run_folder import save_model
from teachers.loading import load_teacher

SST2 = get_task("sst2")
CODE = {
    "auto_map": {"AutoModelForSequenceClassification": "somebody/else--spy.Spy", "AutoConfig": "spy.Spy"},
    "custom_pipelines": {"text-classification": {"impl": "somebody/else--spy.Spy", "pt": []}},
}
POSITIONS = 96


@pytest.fixture
def teacher(tmp_path):
    """A finished teacher whose files name code, its own and somebody else's, that would end the test."""
    tokenizer = train_tokenizer(["a good film", "a bad film"], 50)
    folder = tmp_path / "origin"
    tiny_bert(vocab_size=len(tokenizer), id2label={0: "negative", 1: "positive"}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "spy.py").write_text("raise SystemExit('code of a checkpoint was executed')")
    for name, more in {
        "config.json": CODE,
        "tokenizer_config.json": {
            "auto_map": {"AutoTokenizer": ["somebody/else--spy.Spy", None]},
            "model_max_length": 32,
        },
    }.items():
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | more))
    return load_teacher(str(folder), SST2)


@pytest.fixture
def student(teacher):
    return students.student_from_teacher(
        teacher.model, layer_map=[0], attention="performer", num_features=8, positions=POSITIONS
    )[0]


def code_named_in(folder):
    """Return what the JSON files of a folder name as code, by file."""
    found = {}
    for path in folder.glob("*.json"):
        text = path.read_text()
        if any(key in text for key in CODE) or "spy" in text:
            content = json.loads(text)
            found[path.name] = {key: content.get(key) for key in CODE}
    return found


def test_a_student_names_its_own_code_alone(teacher, student, tmp_path):
    save_model(student, teacher.tokenizer, tmp_path / "student")
    own = dict(students.StudentForSequenceClassification.auto_map)
    assert code_named_in(tmp_path / "student") == {"config.json": {"auto_map": own, "custom_pipelines": None}}
    assert all((tmp_path / "student" / f"{entry.partition('.')[0]}.py").is_file() for entry in own.values())
    assert not (tmp_path / "student" / "spy.py").exists()


def test_a_student_built_and_saved_in_python_names_its_own_code_alone(student, tmp_path):
    student.save_pretrained(tmp_path / "student")
    assert "spy" not in (tmp_path / "student" / "config.json").read_text()


def test_a_teacher_names_no_code(teacher, tmp_path):
    save_model(teacher.model, teacher.tokenizer, tmp_path / "teacher")
    assert code_named_in(tmp_path / "teacher") == {}


def test_the_tokenizer_loads_without_the_flag(teacher, student, tmp_path):
    save_model(student, teacher.tokenizer, tmp_path / "student")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "student", trust_remote_code=False)
    assert tokenizer("a good film")["input_ids"] == teacher.tokenizer("a good film")["input_ids"]
    assert AutoConfig.from_pretrained(tmp_path / "student").id2label == {0: "negative", 1: "positive"}


def test_a_pipeline_reads_as_many_tokens_as_the_student_has_positions(teacher, student, tmp_path):
    teacher.tokenizer(["a good film"], truncation=True, max_length=8, padding="max_length")  # which it remembers
    save_model(student, teacher.tokenizer, tmp_path / "student")
    assert teacher.tokenizer.model_max_length == 32
    classify = pipeline("text-classification", model=str(tmp_path / "student"), trust_remote_code=False)
    assert classify.tokenizer.model_max_length == POSITIONS
    assert len(classify.tokenizer("film " * 200, truncation=True)["input_ids"]) == POSITIONS
    assert len(classify.tokenizer("film " * 20)["input_ids"]) == 22
    assert classify("film " * 200, truncation=True)[0]["label"] in ("negative", "positive")
    backend = json.loads((tmp_path / "student" / "tokenizer.json").read_text())
    assert (backend["truncation"], backend["padding"]) == (None, None)


def test_weights_are_saved_as_ever(teacher, student, tmp_path):
    save_model(student, teacher.tokenizer, tmp_path / "student")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    assert all(tensor.equal(loaded.state_dict()[name]) for name, tensor in student.state_dict().items())
