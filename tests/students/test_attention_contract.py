"""The contract that every attention mechanism signs, over every mechanism and kind of features.

What a mechanism states about itself in its class attributes decides which of the tests C1 to C13 apply to it.
Shapes: B batch, N sequence length, H heads, d head size. fp64 unless a test says otherwise.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification

from students import ATTENTIONS, FEATURES, StudentConfig, StudentForSequenceClassification, student_from_teacher
from students.attention.naive import naive_favor_attention, naive_softmax_attention

HEADS, HEAD_SIZE, FEATURE_COUNT = 2, 8, 16
VARIANTS = [
    pytest.param(name, features, id=f"{name}-{features}" if attention.has_random_features else name)
    for name, attention in ATTENTIONS.items()
    for features in (FEATURES if attention.has_random_features else FEATURES[:1])
]
over_variants = pytest.mark.parametrize(("name", "features"), VARIANTS)


def naive_performer(module, query, key, value, mask):
    root = module.temperature.sqrt().view(-1, 1, 1)
    return naive_favor_attention(query * root, key * root, value, mask, module.projection)


# The slow form of each mechanism.
NAIVE = {
    "performer": naive_performer,
    "softmax": lambda module, query, key, value, mask: naive_softmax_attention(query, key, value, mask),
}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def configuration(name, features, **options):
    sizes = {
        "vocab_size": 50,
        "hidden_size": HEADS * HEAD_SIZE,
        "num_attention_heads": HEADS,
        "num_hidden_layers": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "num_features": FEATURE_COUNT,
    }
    return StudentConfig(attention=name, features=features, **sizes | options)


def mechanism(name, features, dtype=torch.float64, **options):
    """One mechanism with temperatures off their start, so that a forgotten one shows."""
    module = ATTENTIONS[name](configuration(name, features, **options), layer=0)
    module.initialize_features()
    with torch.no_grad():
        for index, parameter in enumerate(module.feature_parameters()):
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator(index)))
    return module.to(dtype).eval()


def inputs(batch=2, length=11, dtype=torch.float64, seed=0, heads=HEADS, head_size=HEAD_SIZE):
    random = generator(seed)
    return [torch.randn(batch, heads, length, head_size, generator=random, dtype=dtype) for _ in range(3)]


def mask_of(lengths, length):
    return torch.arange(length) < torch.tensor(lengths)[:, None]


def append_rows(tensor, rows):
    return torch.cat([tensor, rows.expand(*tensor.shape[:2], 20, tensor.shape[-1])], dim=2)


@over_variants
@pytest.mark.parametrize("masked", [False, True])
def test_c1_padding_changes_nothing(name, features, masked):
    module = mechanism(name, features)
    query, key, value = inputs()
    mask = mask_of([11, 6] if masked else [11, 11], 11)
    garbage = 7 * torch.randn(20, HEAD_SIZE, generator=generator(1), dtype=torch.float64)
    longer_mask = F.pad(mask, (0, 20))
    with torch.no_grad():
        expected = module.attend(query, key, value, mask if masked else None)
        for pad_value in (garbage, torch.full_like(garbage, torch.nan)):
            padded = append_rows(query, garbage), append_rows(key, garbage), append_rows(value, pad_value)
            difference = module.attend(*padded, longer_mask)[:, :, :11] - expected
            assert difference[mask[:, None].expand(-1, HEADS, -1)].abs().max() < 1e-9


@over_variants
def test_c1_pads_get_no_gradient(name, features):
    module = mechanism(name, features)
    leaves = [tensor.requires_grad_() for tensor in inputs(length=9)]
    mask = mask_of([9, 4], 9)
    context = module.attend(*leaves, mask)
    (context.square() * mask[:, None, :, None]).sum().backward()
    for leaf in leaves:
        assert leaf.grad[1, :, 4:].abs().max() == 0
        assert leaf.grad[1, :, :4].abs().max() > 0


@over_variants
def test_c1_left_padding_of_the_whole_model(name, features):
    torch.manual_seed(0)
    model = StudentForSequenceClassification(configuration(name, features)).double().eval()
    input_ids = torch.randint(1, 50, (2, 10), generator=generator(2))
    expected = model(input_ids).logits
    left = model(
        F.pad(input_ids, (5, 0), value=3),
        attention_mask=F.pad(torch.ones(2, 10, dtype=torch.long), (5, 0)),
        position_ids=F.pad(torch.arange(10), (5, 0)).expand(2, -1),
        output_hidden_states=True,
    ).hidden_states[-1]
    # The pooler reads position 0; compare what it would read at the first real token.
    pooled = model.bert.pooler(left[:, 5:])
    torch.testing.assert_close(model.classifier(pooled), expected, rtol=0, atol=1e-9)


@over_variants
def test_c1_an_example_without_real_tokens_is_finite(name, features):
    module = mechanism(name, features)
    leaves = [tensor.requires_grad_() for tensor in inputs(length=5)]
    context = module.attend(*leaves, mask_of([5, 0], 5))
    context.sum().backward()
    assert context.isfinite().all()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


@over_variants
def test_c2_examples_do_not_meet(name, features):
    module = mechanism(name, features)
    query, key, value = inputs(batch=3)
    query[1:] *= 9  # a maximum over the batch would show
    key[1:] *= 9
    mask = mask_of([7, 11, 3], 11)
    alone = module.attend(query[:1], key[:1], value[:1], mask[:1])
    torch.testing.assert_close(module.attend(query, key, value, mask)[:1], alone, rtol=0, atol=1e-10)


@over_variants
@pytest.mark.parametrize("length", [1, 7, 40])  # below and above the number of features
def test_c3_equals_the_naive_form_with_gradients(name, features, length):
    module = mechanism(name, features)
    mask = mask_of([length, max(1, length // 2)], length)
    weight = torch.randn(2, HEADS, length, HEAD_SIZE, generator=generator(3), dtype=torch.float64)
    weight = weight * mask[:, None, :, None]
    results = []
    for function in (module.attend, lambda *tensors: NAIVE[name](module, *tensors)):
        leaves = [tensor.requires_grad_() for tensor in inputs(length=length)]
        context = function(*leaves, mask)
        results.append([context * weight.bool(), *torch.autograd.grad((context * weight).sum(), leaves)])
    for fast, naive in zip(*results, strict=True):
        torch.testing.assert_close(fast, naive, rtol=0, atol=1e-9)


def test_c4_softmax_is_its_own_limit():
    query, key, value = inputs()
    expected = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(
        mechanism("softmax", "fixed").attend(query, key, value, None), expected, rtol=0, atol=1e-10
    )


def test_c4_performer_tends_to_softmax_with_more_features():
    query, key, value = (0.5 * tensor for tensor in inputs(length=30))
    expected = F.scaled_dot_product_attention(query, key, value)
    errors = []
    for num_features in (16, 1024):
        module = ATTENTIONS["performer"](configuration("performer", "redrawn", num_features=num_features), layer=0)
        module.double().initialize_features()
        squares = []
        for redraw_index in range(8):
            module.redraw_features(redraw_index)
            context = module.attend(query, key, value, None).detach()
            squares.append(float((context - expected).square().sum() / expected.square().sum()))
        errors.append(sum(squares) ** 0.5 / 8**0.5)
    assert errors[1] < 0.25 * errors[0]  # the error falls like 1/√m, by 8
    assert errors[1] < 0.1


@over_variants
def test_c5_weights_sum_to_one(name, features):
    module = mechanism(name, features)
    if not module.row_stochastic:
        pytest.skip("not a mean of values")
    query, key, value = inputs()
    mask = mask_of([11, 6], 11)
    real = mask[:, None, :, None].expand_as(value)
    ones = module.attend(query, key, torch.ones_like(value), mask)[real]
    torch.testing.assert_close(ones, torch.ones_like(ones), rtol=0, atol=1e-10)
    shifted = module.attend(query, key, value + 3, mask)[real]
    torch.testing.assert_close(shifted, module.attend(query, key, value, mask)[real] + 3, rtol=0, atol=1e-10)


@over_variants
def test_c5_attention_map_is_what_attend_applies(name, features):
    module = mechanism(name, features)
    query, key, value = inputs()
    mask = mask_of([11, 6], 11)
    if not module.has_attention_map:
        with pytest.raises(ValueError, match="no attention map"):
            module.attention_map(query, key, mask)
        return
    weights = module.attention_map(query, key, mask)
    assert weights.shape == (2, HEADS, 11, 11)
    assert (weights >= 0).all()
    assert weights[1, :, :, 6:].abs().max() == 0
    real = mask[:, None, :, None].expand_as(value)
    torch.testing.assert_close(
        (weights @ value)[real], module.attend(query, key, value, mask)[real], rtol=0, atol=1e-10
    )


@over_variants
def test_c6_permutation(name, features):
    module = mechanism(name, features)
    query, key, value = inputs()
    order = torch.randperm(11, generator=generator(4))
    permuted = module.attend(query[:, :, order], key[:, :, order], value[:, :, order], None)
    difference = (permuted - module.attend(query, key, value, None)[:, :, order]).abs().max()
    assert (difference < 1e-10) == module.permutation_equivariant


class LargestOutput(TorchDispatchMode):
    """Record the size of the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.numel = max([self.numel, *sizes])
        return result


@pytest.mark.parametrize(
    ("name", "features"), [variant for variant in VARIANTS if ATTENTIONS[variant.values[0]].complexity == "linear"]
)
def test_c7_linear_mechanisms_build_nothing_quadratic(name, features):
    module = mechanism(name, features, dtype=torch.float32)
    tensors = [tensor.requires_grad_() for tensor in inputs(batch=1, length=1024, dtype=torch.float32)]
    with LargestOutput() as largest:
        module.attend(*tensors, None).sum().backward()
    assert 0 < largest.numel <= 2 * HEADS * 1024 * max(FEATURE_COUNT, HEAD_SIZE)


@over_variants
def test_c8_operations_grow_as_stated(name, features):
    module = mechanism(name, features, dtype=torch.float32)

    def operations(length):
        # The counter knows nothing of the fused CPU kernel and would report 0.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            module.attend(*inputs(batch=1, length=length, dtype=torch.float32), None)
        return counter.get_total_flops()

    growth = operations(512) / operations(256)
    assert growth <= 2.1 if module.complexity == "linear" else growth >= 3.8


@over_variants
@pytest.mark.parametrize("masked", [False, True])
def test_c9_gradcheck(name, features, masked):
    module = mechanism(name, features, hidden_size=8, num_features=6)
    leaves = [tensor.requires_grad_() for tensor in inputs(batch=1, length=7, head_size=4)]
    mask = mask_of([5], 7) if masked else None
    parameters = module.feature_parameters()

    def real_context(query, key, value, *_):
        return module.attend(query, key, value, mask)[:, :, : 5 if masked else 7]

    assert torch.autograd.gradcheck(real_context, (*leaves, *parameters))


@over_variants
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16_autocast"])
@pytest.mark.parametrize("scale", [0.25, 1.0, 5.0, 30.0])
def test_c10_any_norm_is_finite_and_not_mean_pooling(name, features, precision, scale):
    query, key, value = inputs(length=24, dtype=torch.float32)
    query, key = scale * query, scale * key
    exact = mechanism(name, features).attend(query.double(), key.double(), value.double(), None)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16_autocast": torch.float16}[precision]
    module = mechanism(name, features, dtype=torch.float32)
    leaves = [tensor.to(dtype).requires_grad_() for tensor in (query, key, value)]
    with torch.autocast("cpu", torch.float16, enabled=precision == "fp16_autocast"):
        context = module.attend(*leaves, None)
    context.float().square().sum().backward()
    assert context.dtype == dtype
    assert context.isfinite().all()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)
    uniform = value.double().mean(2, keepdim=True)
    if (exact - uniform).norm() / uniform.norm() > 0.05:
        assert (context.double() - uniform).norm() / uniform.norm() > 1e-2


@over_variants
def test_c11_saved_and_loaded_state_is_bit_equal(name, features, tmp_path):
    torch.manual_seed(0)
    model = StudentForSequenceClassification(configuration(name, features)).eval()
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
        "PYTHONPATH": str(Path(__file__).parents[2]),
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


@over_variants
def test_c12_every_real_token_is_seen_and_no_pad(name, features):
    module = mechanism(name, features)
    query, key, value = inputs(batch=1, length=6)
    mask = mask_of([4], 6)
    jacobian = torch.autograd.functional.jacobian(lambda v: module.attend(query, key, v, mask).sum(-1), value)
    influence = jacobian.abs().sum((0, 3, -1)).diagonal(dim1=0, dim2=2)  # (N out, N in, H)
    assert (influence[:4, :4] > 0).all()
    assert (influence[:4, 4:] == 0).all()


def test_c13_softmax_student_of_full_depth_is_the_teacher():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_attention_heads=4,
        num_hidden_layers=4,
        intermediate_size=64,
        num_labels=3,
        initializer_range=0.3,
    )
    teacher = BertForSequenceClassification(config).eval()
    student, _ = student_from_teacher(teacher, layer_map=[0, 1, 2, 3], attention="softmax")
    input_ids = torch.randint(1, 50, (3, 12), generator=generator(6))
    batch = {"input_ids": input_ids, "attention_mask": mask_of([12, 5, 1], 12).long(), "token_type_ids": input_ids % 2}
    with torch.no_grad():
        torch.testing.assert_close(student.eval()(**batch).logits, teacher(**batch).logits, rtol=0, atol=1e-5)
