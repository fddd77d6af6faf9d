"""The sparse feed-forward: what it keeps, what it equals, and that it learns, is saved and counted."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification

from distill.training.optimizer import feature_parameters
from students import StudentConfig, student_from_teacher
from students.attention.ops.sparse_feed_forward import SparseIntermediate

OPTIONS = {"modules": 4, "feed_forward_block": 4}


def layer(block=4):
    torch.manual_seed(0)
    config = StudentConfig(
        hidden_size=24,
        num_attention_heads=4,
        intermediate_size=32,
        attention="scaling",
        attention_options={"modules": 4},
    )
    return SparseIntermediate(config, block).double()


def states():
    return torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_one_unit_of_every_block_is_not_zero():
    with torch.no_grad():
        units = layer()(states()).unflatten(-1, (8, 4))
    assert units.count_nonzero(-1).eq(1).all()
    assert units.count_nonzero((0, 1, 2)).gt(0).all()  # not the same one for all tokens


def test_it_is_the_dense_layer_under_that_mask():
    sparse = layer()
    dense = torch.nn.functional.gelu(sparse.dense(states()))
    logits = (states() @ sparse.reduce.weight.T @ sparse.choose.weight.T + sparse.choose.bias).unflatten(-1, (8, 4))
    mask = (logits == logits.amax(-1, keepdim=True)).flatten(-2)
    torch.testing.assert_close(sparse(states()), dense * mask, rtol=0, atol=1e-12)


def test_blocks_of_one_are_the_dense_layer():
    sparse = layer(block=1)
    torch.testing.assert_close(sparse(states()), torch.nn.functional.gelu(sparse.dense(states())), rtol=0, atol=1e-12)


def test_the_controller_has_the_gradient_of_its_softmax():
    sparse, upstream = layer(), torch.randn(2, 7, 32, dtype=torch.float64)
    sparse.chosen(states()).backward(upstream)
    got = sparse.choose.bias.grad.clone()
    sparse.zero_grad()
    logits = sparse.choose(sparse.reduce(states())).unflatten(-1, (-1, 4))
    logits.softmax(-1).flatten(-2).backward(upstream)
    torch.testing.assert_close(got, sparse.choose.bias.grad)
    assert got.abs().max() > 0


@pytest.fixture
def student(make_bert):
    teacher = make_bert(num_layers=2)
    made, report = student_from_teacher(teacher, layer_map=[0, 1], attention="scaling", attention_options=OPTIONS)
    assert {name.rpartition("intermediate.")[2] for name in report.new} == {
        "reduce.weight",
        "choose.weight",
        "choose.bias",
    }
    return made.eval()


def test_a_student_has_it_in_every_layer_and_trains_it_faster(student):
    own = {id(parameter) for parameter in feature_parameters(student)}
    controllers = [parameter for name, parameter in student.named_parameters() if "intermediate.choose" in name]
    assert len(controllers) == 4
    assert {id(parameter) for parameter in controllers} <= own


def test_a_saved_student_is_the_same_and_has_its_source(student, tmp_path):
    student.save_pretrained(tmp_path)
    assert "class SparseIntermediate" in (tmp_path / "attention_ops_sparse_feed_forward.py").read_text()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    tokens = torch.randint(1, 30, (2, 9), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded(tokens).logits, student(tokens).logits)


def test_the_controller_is_counted(student):
    tokens = torch.randint(1, 30, (1, 9), generator=torch.Generator().manual_seed(0))

    def counted(model):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(tokens)
        return counter.get_total_flops() + 0

    config = student.config
    dense = type(config)(**config.to_dict() | {"attention_options": OPTIONS | {"feed_forward_block": 0}})
    without = type(student)(dense).eval()
    assert counted(student) - counted(without) == config.attention_flops(9) - dense.attention_flops(9) > 0
