"""Building a student out of a teacher: what is copied, what is new, what carries over, what is refused."""

import pytest
import torch
from helpers.closeness import assert_close
from helpers.small_students import SIZES as TWO_LAYERS
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    MPNetConfig,
    MPNetForSequenceClassification,
)

from students import ATTENTIONS, calibrate_temperature, student_from_teacher
from students.attention.ops.random_features import mean_pair_norm

SIZES = TWO_LAYERS | {"num_hidden_layers": 4}


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    labels = {0: "no", 1: "maybe", 2: "yes"}
    config = BertConfig(
        **SIZES, id2label=labels, label2id={name: index for index, name in labels.items()}, hidden_dropout_prob=0.05
    )
    return BertForSequenceClassification(config).eval()


def batch():
    input_ids = torch.randint(1, 60, (3, 12), generator=torch.Generator().manual_seed(0))
    return {"input_ids": input_ids, "attention_mask": (torch.arange(12) < torch.tensor([12, 5, 8])[:, None]).long()}


@pytest.mark.parametrize("layers", [[0, 2], [1, 3], [3]])
def test_mapped_layers_are_copied(teacher, layers):
    student, report = student_from_teacher(teacher, layer_map=layers, attention="performer", num_features=16)
    weights, source = student.state_dict(), teacher.state_dict()
    for name, tensor in weights.items():
        if name.startswith("bert.encoder.layer."):
            index, rest = name.removeprefix("bert.encoder.layer.").split(".", maxsplit=1)
            teacher_name = f"bert.encoder.layer.{layers[int(index)]}.{rest}"
        else:
            teacher_name = name
        assert (teacher_name in source) == (name in report.copied), name
        if teacher_name in source:
            assert torch.equal(tensor, source[teacher_name]), name
            assert tensor.data_ptr() != source[teacher_name].data_ptr(), name
    assert sorted(report.copied + report.new) == sorted(weights)
    assert report.in_words().startswith(f"{len(report.copied)} tensors copied, {3 * len(layers)} new (log_temperature")
    assert {name.rpartition(".")[2] for name in report.new} == {"projection", "log_temperature", "redraw_index"}
    assert student.config.layer_map == layers
    assert student.config.num_hidden_layers == len(layers)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_every_tensor_is_reported_once(teacher, attention):
    student, report = student_from_teacher(
        teacher, layer_map=[0, 2], attention=attention, attention_options=ATTENTIONS[attention].small_options
    )
    assert sorted(report.copied + report.derived + report.new) == sorted(student.state_dict())
    own = {name: tensor for name, tensor in student.state_dict().items() if name not in report.copied}
    assert all(tensor.isfinite().all() for tensor in own.values())


def test_labels_and_settings_carry_over(teacher):
    student, _ = student_from_teacher(
        teacher, layer_map=[0], attention="performer", features="learned", num_features=8, seed=4, softmax_layers=[0]
    )
    assert student.config.id2label == {0: "no", 1: "maybe", 2: "yes"}
    assert student.config.hidden_dropout_prob == 0.05
    assert student.config.model_type == "efficient_bert"
    assert (student.config.features, student.config.num_features) == ("learned", 8)
    assert (student.config.projection_seed, student.config.softmax_layers) == (4, [0])
    assert student.dtype == torch.float32


def test_regression_teacher_gives_a_regression_student():
    teacher = BertForSequenceClassification(BertConfig(**SIZES, num_labels=1, problem_type="regression"))
    student, _ = student_from_teacher(teacher, layer_map=[0], attention="performer")
    assert (student.config.num_labels, student.config.problem_type) == (1, "regression")


def test_half_precision_teacher_gives_a_full_precision_student(teacher):
    half = BertForSequenceClassification(teacher.config).to(torch.bfloat16)
    student, _ = student_from_teacher(half, layer_map=[0], attention="performer")
    assert {tensor.dtype for tensor in student.parameters()} == {torch.float32}


def test_encoder_without_a_head_gets_a_seeded_one():
    bare = BertModel(BertConfig(**SIZES))
    state = torch.get_rng_state()
    first, report = student_from_teacher(bare, layer_map=[0, 1, 2, 3], attention="softmax", seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    second, _ = student_from_teacher(bare, layer_map=[0, 1, 2, 3], attention="softmax", seed=1)
    other, _ = student_from_teacher(bare, layer_map=[0, 1, 2, 3], attention="softmax", seed=2)
    assert report.new == ("classifier.weight", "classifier.bias")
    assert torch.equal(first.classifier.weight, second.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    expected = bare.eval()(**batch()).pooler_output
    assert_close(first.bert.eval()(**batch()).pooler_output, expected)


def test_not_a_bert_encoder_is_refused(teacher):
    with pytest.raises(ValueError, match="must be a BERT encoder, this one is a 'mpnet', whose attention has a bias"):
        student_from_teacher(MPNetForSequenceClassification(MPNetConfig(**SIZES)), layer_map=[0], attention="softmax")
    decoder = BertModel(BertConfig(**SIZES, is_decoder=True))
    with pytest.raises(ValueError, match="this one is a decoder"):
        student_from_teacher(decoder, layer_map=[0], attention="softmax")
    with pytest.raises(ValueError, match="0 to 3"):
        student_from_teacher(teacher, layer_map=[4], attention="softmax")
    with pytest.raises(ValueError, match="did you mean 'performer'"):
        student_from_teacher(teacher, layer_map=[0], attention="perfomer")


def test_mean_pair_norm_is_the_mean_over_real_pairs():
    random = torch.Generator().manual_seed(1)
    query, key = (torch.randn(2, 3, 5, 4, generator=random) for _ in range(2))
    lengths = [5, 2]
    pairs = [
        (query[example, :, None, i] + key[example, :, None, j]).square().sum(-1) / 2  # √d = 2
        for example, length in enumerate(lengths)
        for i in range(length)
        for j in range(length)
    ]
    expected = torch.cat(pairs, dim=1).mean(1)
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    torch.testing.assert_close(mean_pair_norm(query, key, mask), expected)
    full = torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(mean_pair_norm(query, key, None), mean_pair_norm(query, key, full))


def test_calibration_reaches_the_target_norm(teacher):
    student, _ = student_from_teacher(teacher, layer_map=[0, 2], attention="performer", target_norm=1.6)
    student.train()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    temperatures = calibrate_temperature(student, batch() | {"labels": torch.zeros(3, dtype=torch.long)})
    assert student.training
    assert list(temperatures) == [0, 1]
    changed = {
        name.rpartition(".")[2] for name, tensor in student.state_dict().items() if not tensor.equal(before[name])
    }
    assert changed == {"log_temperature"}
    norms = {}

    def measure(module, inputs):
        query, key = module.split_heads(module.query(inputs[0])), module.split_heads(module.key(inputs[0]))
        norms[module.layer] = module.temperature * mean_pair_norm(query, key, inputs[1])

    for layer in student.bert.encoder.layer:
        layer.attention.self.register_forward_pre_hook(measure)
    with torch.no_grad():
        student.eval()(**batch())
    for layer, norm in norms.items():
        assert max(temperatures[layer]) < 1
        torch.testing.assert_close(norm, torch.full((4,), 1.6))


@pytest.mark.parametrize("attention", [name for name in ATTENTIONS if not ATTENTIONS[name].uses_num_features])
def test_a_number_of_features_without_effect_is_refused(teacher, attention):
    with pytest.raises(ValueError, match=f"num_features 8 has no effect on {attention} attention; leave it out"):
        student_from_teacher(teacher, layer_map=[0], attention=attention, num_features=8)


def test_calibration_never_sharpens_the_map(teacher):
    student, _ = student_from_teacher(teacher, layer_map=[0], attention="performer", target_norm=1e6)
    assert calibrate_temperature(student, batch()) == {0: [1.0] * 4}


@pytest.mark.real
def test_real_encoder_at_full_depth_with_softmax_is_the_teacher(shared):
    teacher = AutoModelForSequenceClassification.from_pretrained(shared / "models" / "minilm-l6", num_labels=2).eval()
    student, report = student_from_teacher(teacher, layer_map=list(range(6)), attention="softmax")
    inputs = batch() | {"input_ids": batch()["input_ids"] * 100}
    with torch.no_grad():
        assert_close(student.eval()(**inputs).logits, teacher(**inputs).logits)
    assert report.new == ()
