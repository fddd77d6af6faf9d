"""LUNA's learned kernel: where it starts, and that its functions can become others."""

import torch
from helpers.contract import configuration, generator, inputs, mechanism
from helpers.tiny_bert import tiny_bert

from students import ATTENTIONS, calibrate_temperature, student_from_teacher
from students.attention.luna_kernel import FUNCTIONS


def test_starts_as_the_hyperbolic_performer():
    luna = mechanism("luna_kernel", num_features=12)
    luna.initialize_features()
    performer = mechanism("performer", "learned", {"kernel": "hyperbolic"}, num_features=12)
    with torch.no_grad():
        performer.projection.copy_(luna.projection)
        for module in (luna, performer):
            module.log_temperature.copy_(torch.tensor([-1.0, 0.2])[: module.num_heads])
    tensors = inputs(luna)
    torch.testing.assert_close(luna.attend(*tensors, None), performer.attend(*tensors, None), rtol=0, atol=1e-10)


def test_projections_are_learned_whatever_the_option_says():
    for features in ("fixed", "redrawn", "learned"):
        module = ATTENTIONS["luna_kernel"](configuration("luna_kernel", features), layer=0)
        names = {name for name, _ in module.named_parameters()}
        assert {"projection", "slope", "unit_weight", "envelope", "log_temperature"} <= names
        assert module.projection.shape[0] == module.num_heads


def test_an_odd_number_of_features_is_rounded_up():
    module = mechanism("luna_kernel", num_features=7)
    assert module.projection.shape[1] * FUNCTIONS == 8


def test_functions_learn_a_kernel_that_exponentials_do_not_have():
    """Values that depend on |k|, not on its direction, seen from queries of all directions."""
    module = mechanism("luna_kernel", num_features=16)
    query, key, _ = inputs(module, batch=4, length=24)
    weights = (-(key.square().sum(-1, keepdim=True) - 4).abs()).exp().mT.expand(*query.shape[:3], -1)
    value = torch.randn(key.shape, generator=generator(8), dtype=torch.float64)
    target = (weights / weights.sum(-1, keepdim=True)) @ value

    def fitted(parameters):
        optimizer = torch.optim.Adam(parameters, lr=0.03)
        for _ in range(120):
            loss = (module.attend(query, key, value, None) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    without = fitted([module.projection, module.log_temperature])
    module.load_state_dict(state)
    assert fitted(module.feature_parameters()) < 0.7 * without


def test_temperature_is_calibrated():
    teacher = tiny_bert(num_hidden_layers=2, hidden_size=16, num_attention_heads=2, intermediate_size=32, num_labels=2)
    with torch.no_grad():
        for layer in teacher.bert.encoder.layer:
            layer.attention.self.query.weight.mul_(30)
            layer.attention.self.key.weight.mul_(30)
    student, report = student_from_teacher(teacher, layer_map=[0, 1], attention="luna_kernel", num_features=8)
    temperatures = calibrate_temperature(student, {"input_ids": torch.randint(1, 50, (3, 12), generator=generator(6))})
    assert set(temperatures) == {0, 1}
    assert all(0 < value < 1 for values in temperatures.values() for value in values)
    assert any("unit_weight" in name for name in report.new)
