"""Students whose layers have a mechanism each."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.fused_flops import FUSED
from helpers.small_students import SIZES, batch, student
from helpers.tiny_bert import tiny_bert
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification

from distill.models.flops import attention_name, model_flops
from students import (
    ATTENTIONS,
    STUDENTS,
    StudentConfig,
    StudentForCausalLM,
    exact_form,
    plain_bert,
    student_from_teacher,
)

ROOT = Path(__file__).resolve().parents[2]
MIXED = ["taylor", "performer"]


def kinds(model):
    return [type(layer.attention.self) for layer in model.bert.encoder.layer]


def mixed(*names, **options):
    return student(attention=list(names), **{"num_features": 8} | options)


def classes(*names):
    return [ATTENTIONS[name] for name in names]


def test_every_layer_has_its_own_mechanism_with_its_own_options_and_features():
    model = mixed("taylor", "performer", attention_options={"dimensions": 3, "kernel": "relu"}, num_features=[5, 7])
    assert kinds(model) == classes("taylor", "performer")
    taylor, performer = (layer.attention.self for layer in model.bert.encoder.layer)
    assert taylor.query_map.weight.shape[1] == 3
    assert (performer.kernel, performer.num_features) == ("relu", 7)
    assert model.config.attention_options == {"dimensions": 3, "kernel": "relu"}


def test_features_that_are_not_given_are_each_mechanisms_own():
    model = mixed("t2r", "performer", num_features=None)
    own = [model.config.of_layer(layer).num_features for layer in (0, 1)]
    size = model.config.size_of_head
    assert own == [ATTENTIONS[name].default_num_features(size) for name in ("t2r", "performer")]
    assert own[0] != own[1]


def test_saved_and_loaded_it_is_the_same_and_knows_its_layers(tmp_path):
    model = mixed(*MIXED).eval()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["attention"] == MIXED
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert kinds(loaded) == kinds(model)
    torch.testing.assert_close(loaded(**batch()).logits, model(**batch()).logits, rtol=0, atol=0)
    names = {path.name for path in tmp_path.glob("attention_*.py")}
    assert {"attention_taylor.py", "attention_performer.py", "attention_mixture.py"} <= names
    assert "attention_hedgehog.py" not in names


def test_its_own_code_loads_where_the_project_is_not_installed(tmp_path):
    model = mixed(*MIXED).eval()
    model.save_pretrained(tmp_path / "student")
    program = (
        "import torch, transformers; "
        "m = transformers.AutoModelForSequenceClassification.from_pretrained('student', trust_remote_code=True); "
        "print([type(layer.attention.self).__name__ for layer in m.bert.encoder.layer])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == str([kind.__name__ for kind in kinds(model)]), done.stderr


def test_the_same_name_in_every_layer_is_one_name():
    assert mixed("performer", "performer").config.attention == "performer"


def test_layers_that_keep_softmax_keep_it():
    model = mixed(*MIXED, softmax_layers=[-1])
    assert kinds(model) == classes("taylor", "softmax")
    assert attention_name(model.config) == "taylor+softmax"
    assert attention_name(mixed(*MIXED, softmax_layers=[0, 1]).config) == "softmax"
    exact = mixed(
        "performer", "linear", softmax_layers=[1], exact_up_to=8
    )  # linear, which has no exact form, is nowhere
    assert exact.config.attention == ["performer", "softmax"]


def test_redrawn_features_leave_those_alone_that_are_always_learned():
    model = mixed("performer", "luna_kernel", features="redrawn")
    performer, luna = (layer.attention.self.projection.clone() for layer in model.bert.encoder.layer)
    model.redraw_projections(3)
    assert not torch.equal(performer, model.bert.encoder.layer[0].attention.self.projection)
    assert torch.equal(luna, model.bert.encoder.layer[1].attention.self.projection)


def test_operations_are_those_of_every_layer():
    model = mixed("linear", "abc", max_position_embeddings=256)
    tokens = {key: values[:1, :1].repeat(1, 256) for key, values in batch().items()}
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter, torch.no_grad():
        model(**tokens)
    assert counter.get_total_flops() == pytest.approx(model_flops(model.config, 256), rel=0.05)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"attention": ["performer"]}, "has 1 names for 2 layers"),
        ({"attention": ["performer", "perfomer"]}, "did you mean 'performer'"),
        ({"attention": MIXED, "attention_options": {"windw": 4}}, "'windw' is unknown"),
        ({"attention": MIXED, "attention_options": {"dimensions": 0}}, "dimensions must be"),
        ({"attention": ["luna", "performer"], "num_features": [4, 4]}, "share one number"),
        ({"attention": ["linear", "performer"], "exact_up_to": 8}, "has linear, which is no estimate"),
        ({"attention": ["bigbird", "performer"], "causal": True}, "has bigbird, which draws the blocks.*t2r, taylor"),
    ],
)
def test_what_cannot_be_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        StudentConfig(num_hidden_layers=2, hidden_size=16, num_attention_heads=2, **given)


def test_short_texts_are_exact_where_all_layers_estimate_softmax():
    model = mixed("performer", "softmax", exact_up_to=64).eval()
    exact = exact_form(model)
    torch.testing.assert_close(model(**batch()).logits, exact(**batch()).logits)
    torch.testing.assert_close(plain_bert(model)(**batch()).logits, exact(**batch()).logits)


def test_a_causal_mixture_sees_nothing_later_and_goes_on_from_its_state():
    torch.manual_seed(0)
    config = StudentConfig(**SIZES, attention=["t2r", "performer"], num_features=8, causal=True)
    model = StudentForCausalLM(config).eval()
    tokens = batch()["input_ids"]
    later = tokens.clone()
    later[:, 6:] = 1
    whole, other = (model(input_ids=each).logits for each in (tokens, later))
    torch.testing.assert_close(whole[:, :6], other[:, :6], rtol=0, atol=1e-5)
    assert (whole[:, 6:] - other[:, 6:]).abs().max() > 0.01
    first = model(input_ids=tokens[:, :4])
    rest = model(input_ids=tokens[:, 4:], state=first.state)
    torch.testing.assert_close(rest.logits, whole[:, 4:], rtol=1e-4, atol=1e-4)


def test_it_is_built_of_a_teacher_with_what_each_layer_has():
    teacher = tiny_bert(num_hidden_layers=2, hidden_size=16, num_attention_heads=2, intermediate_size=32, num_labels=2)
    built, report = student_from_teacher(teacher, layer_map=[0, 1], attention=MIXED, num_features=4)
    assert kinds(built) == classes(*MIXED)
    assert any("layer.0.attention.self.query_map" in name for name in report.new)
    assert any("layer.1.attention.self.projection" in name for name in report.new)


def test_whatever_is_read_of_a_mechanism_is_answered_by_a_mixture():
    mixture = STUDENTS.of(MIXED)
    read = set()
    for path in [*(ROOT / "distill").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")]:
        read |= set(re.findall(r"\bmechanism\.(\w+)", path.read_text(encoding="utf-8")))
    read |= set(re.findall(r"config\.mechanism\.(\w+)", (ROOT / "students" / "language_models.py").read_text()))
    assert {"carries_segments", "continues", "has_map_with"} <= read
    # Of `distill.config.recipe.Mechanism`, which is another one, and of the mechanism of one layer.
    others = {"has_features", "first_flops", "extend_positions"}
    assert {name for name in read if not hasattr(mixture, name)} <= others


def test_what_holds_for_all_is_asked_of_each():
    mixture = STUDENTS.of(["performer", "linformer"])
    assert (mixture.complexity, mixture.estimates_softmax, mixture.has_random_features) == ("linear", True, True)
    assert not mixture.has_map_with({})
    assert STUDENTS.of(["performer", "softmax"]).complexity == "quadratic"
    assert STUDENTS.of(["performer", "softmax"]).has_map_with({})
    assert not STUDENTS.of(["performer", "rfa"]).has_map_with({})
    assert STUDENTS.of(["fastformer", "performer"]).projections == ("query", "key")
    assert STUDENTS.of("abc") is ATTENTIONS["abc"]
