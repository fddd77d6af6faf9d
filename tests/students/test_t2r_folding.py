"""A T2R student whose feature map is folded into its projections is the same student, with less to do."""

import os
import subprocess
import sys

import pytest
import torch
from helpers.closeness import LAST_BITS, assert_close
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification

from distill.export.deployment import deploy_file, largest_difference, predict_validation
from distill.export.formats import FORMATS
from students import ATTENTIONS, StudentConfig, StudentForSequenceClassification, fold_features, student_from_teacher

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
}
BATCH = {
    "input_ids": torch.randint(1, 60, (3, 12), generator=torch.Generator().manual_seed(0)),
    "attention_mask": (torch.arange(12) < torch.tensor([[12], [5], [1]])).long(),
}


def student(**options):
    """A T2R student of two layers, softmax in one more, with its feature map off its start."""
    torch.manual_seed(0)
    teacher = BertForSequenceClassification(BertConfig(**SIZES, num_hidden_layers=3))
    settings = {"layer_map": [0, 1, 2], "attention": "t2r", "softmax_layers": [1], "num_features": 6} | options
    model = student_from_teacher(teacher, **settings)[0].eval()
    with torch.no_grad():
        for layer in set(range(len(model.bert.encoder.layer))) - set(settings["softmax_layers"]):
            for parameter in model.bert.encoder.layer[layer].attention.self.parameters():
                parameter += 0.1 * torch.randn(parameter.shape)
    return model


@torch.no_grad()
def test_the_folded_student_is_the_same_one():
    model = student()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = model(**BATCH).logits
    folded = fold_features(model)
    assert_close(folded(**BATCH).logits, expected)
    torch.testing.assert_close(
        fold_features(model.double())(**BATCH).logits, model(**BATCH).logits, rtol=0, atol=1e-12
    )
    assert not any("feature_map" in name for name, _ in folded.named_parameters())
    assert folded.config.folded_features
    assert not model.config.folded_features
    assert all(torch.equal(model.state_dict()[name].float(), tensor) for name, tensor in before.items())


def test_folding_saves_operations_and_they_are_counted():
    model = student(softmax_layers=[])
    folded = fold_features(model)
    counted = []
    for each in (model, folded):
        module = each.bert.encoder.layer[0].attention.self
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module.mix(torch.randn(1, 12, 32), None)
        counted.append(counter.get_total_flops())
        stated = module.flops(each.config, 12) - 2 * 12 * 32**2
        assert counted[-1] == pytest.approx(stated, rel=0.05)
    assert counted[1] < 0.8 * counted[0]


def test_what_folding_cannot_make_cheaper_stays_as_it_is():
    wide = student(num_features=11)  # Dd / (D - d) = 32 · 8 / 24 = 10.7
    assert fold_features(wide) is wide
    folded = fold_features(student(num_features=10))
    assert folded.config.folded_features
    assert fold_features(folded) is folded
    for name in set(ATTENTIONS) - {"t2r"}:
        other = StudentForSequenceClassification(StudentConfig(**SIZES, attention=name, num_hidden_layers=1))
        assert fold_features(other) is other


LOAD = """
import sys, torch
from transformers import AutoModelForSequenceClassification
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
batch = torch.load(sys.argv[2])
with torch.no_grad():
    torch.save(model(**batch["inputs"]).logits, sys.argv[3])
"""


def test_the_folded_student_loads_without_this_repository(tmp_path):
    folded = fold_features(student())
    folded.save_pretrained(tmp_path / "folded")
    torch.save({"inputs": BATCH}, tmp_path / "batch.pt")
    paths = [str(tmp_path / name) for name in ("folded", "batch.pt", "logits.pt")]
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    subprocess.run([sys.executable, "-c", LOAD, *paths], check=True, cwd=tmp_path, env=environment, timeout=200)
    with torch.no_grad():
        assert_close(torch.load(tmp_path / "logits.pt"), folded(**BATCH).logits, LAST_BITS)


def test_the_folded_student_exports(make_examples, tmp_path):
    model = student(layer_map=[0], softmax_layers=[])
    validation = {"validation": make_examples(24)}
    expected = predict_validation(model, validation)
    (deployment,) = deploy_file(fold_features(model), tmp_path / "it.onnx", FORMATS["onnx"], validation, expected)
    assert largest_difference(expected, deployment.logits) < 1e-4
