"""Contract C11: a mechanism's state is drawn the same everywhere, initialised in full, and saved."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import torch
from helpers.contract import (
    configuration,
    generator,
    over_variants,
)

from students import ATTENTIONS, StudentForSequenceClassification


@over_variants
def test_c11_saved_and_loaded_state_is_bit_equal(name, features, choices, tmp_path):
    torch.manual_seed(0)
    model = StudentForSequenceClassification(configuration(name, features, choices)).eval()
    if features == "redrawn" and ATTENTIONS[name].has_random_features:
        before = model.bert.encoder.layer[0].attention.self.projection.clone()
        model.redraw_projections(3)
        assert not torch.equal(before, model.bert.encoder.layer[0].attention.self.projection)
    model.save_pretrained(tmp_path)
    input_ids = torch.randint(1, 50, (2, 10), generator=generator(5))
    torch.manual_seed(1)
    loaded = StudentForSequenceClassification.from_pretrained(tmp_path).eval()
    assert not loaded.training
    for tensor_name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[tensor_name]), tensor_name
    assert torch.equal(loaded(input_ids).logits, model(input_ids).logits)


@over_variants
def test_c11_nothing_of_a_new_model_is_left_uninitialised(name, features, choices):
    torch.use_deterministic_algorithms(True)  # fills empty tensors with NaN
    try:
        assert torch.empty(2).isnan().all()
        model = StudentForSequenceClassification(configuration(name, features, choices))
    finally:
        torch.use_deterministic_algorithms(False)
    for tensor_name, tensor in model.state_dict().items():
        assert tensor.isfinite().all(), tensor_name


FINGERPRINT = """
import hashlib, sys, torch
torch.manual_seed(int(sys.argv[1]))
from students import StudentConfig, StudentModel
sizes = dict(vocab_size=50, hidden_size=16, num_attention_heads=2, num_hidden_layers=2, intermediate_size=32)
for features in ("fixed", "redrawn", "learned"):
    model = StudentModel(StudentConfig(attention="performer", features=features, projection_seed=7, **sizes))
    if features == "redrawn":
        model.redraw_projections(2)
    for layer in model.encoder.layer:
        print(hashlib.sha256(layer.attention.self.projection.detach().numpy().tobytes()).hexdigest())
"""


def test_c11_fresh_processes_draw_the_same_projections():
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "random",
    }
    processes = [
        subprocess.Popen([sys.executable, "-c", FINGERPRINT, seed], env=environment, stdout=subprocess.PIPE, text=True)
        for seed in ("1", "2")
    ]
    first, second = (process.communicate(timeout=120)[0].split() for process in processes)
    assert first == second
    assert len(set(first)) == 6  # layers, draws and kinds of features differ from each other


def test_c11_projection_depends_on_seed_layer_and_draw():
    def fingerprint(seed=0, layer=0, redraw_index=0):
        module = ATTENTIONS["performer"](configuration("performer", "redrawn", projection_seed=seed), layer)
        module.initialize_features()
        module.redraw_features(redraw_index)
        assert module.redraw_index == redraw_index
        return hashlib.sha256(module.projection.numpy().tobytes()).hexdigest()

    prints = [fingerprint(), fingerprint(seed=1), fingerprint(layer=1), fingerprint(redraw_index=1)]
    assert len(set(prints)) == 4
    assert fingerprint() == prints[0]
