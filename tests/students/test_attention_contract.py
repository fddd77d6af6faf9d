"""The contract that every attention mechanism signs, over every mechanism, its named choices and kinds of features.

What a mechanism states about itself in its class attributes decides which of the tests C1 to C13 apply to it.
Shapes: B batch, N sequence length, H heads, d head size. fp64 unless a test says otherwise.
"""

import hashlib
import itertools
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

HEADS, HEAD_SIZE, FEATURE_COUNT = 2, 8, 16


def variants_of(name):
    """Yield every combination of a mechanism's named choices, kinds of random features included."""
    attention = ATTENTIONS[name]
    choices = {option: values for option, values in attention.options.items() if isinstance(values, tuple)}
    kinds = FEATURES if attention.has_random_features else FEATURES[:1]
    for features, *values in itertools.product(kinds, *choices.values()):
        label = [name, *([features] if attention.has_random_features else []), *values]
        yield pytest.param(name, features, dict(zip(choices, values, strict=True)), id="-".join(label))


VARIANTS = [variant for name in ATTENTIONS for variant in variants_of(name)]
over_variants = pytest.mark.parametrize(("name", "features", "choices"), VARIANTS)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def configuration(name, features="fixed", choices=(), **options):
    sizes = {
        "vocab_size": 50,
        "hidden_size": HEADS * HEAD_SIZE,
        "num_attention_heads": HEADS,
        "num_hidden_layers": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "num_features": FEATURE_COUNT,
    }
    small = ATTENTIONS[name].small_options | dict(choices)
    return StudentConfig(attention=name, features=features, attention_options=small, **sizes | options)


def mechanism(name, features="fixed", choices=(), dtype=torch.float64, **options):
    """One mechanism with its parameters off their start, so that a forgotten one shows."""
    torch.manual_seed(0)
    module = ATTENTIONS[name](configuration(name, features, choices, **options), layer=0)
    module.initialize_features()
    with torch.no_grad():
        for index, parameter in enumerate(module.feature_parameters()):
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator(index)))
    return module.to(dtype).eval()


def inputs(module, batch=2, length=11, dtype=torch.float64, seed=0):
    """What the mechanism mixes: queries, keys and values (B, H, N, d), or hidden states (B, N, D); always a list."""
    random = generator(seed)
    if module.works_on_heads():
        shape, count = (batch, module.num_heads, length, module.head_size), 3
    else:
        shape, count = (batch, length, module.num_heads * module.head_size), 1
    return [torch.randn(shape, generator=random, dtype=dtype) for _ in range(count)]


def run(module, tensors, mask):
    """Return what the mechanism makes of :func:`inputs`, in the shape of one of them."""
    return module.attend(*tensors, mask) if module.works_on_heads() else module.mix(*tensors, mask)


def run_naive(module, tensors, mask):
    return module.naive_attend(*tensors, mask) if module.works_on_heads() else module.naive_mix(*tensors, mask)


def over_rows(mask, tensor):
    """Broadcast a (B, N) mask over (B, H, N, d) or (B, N, D)."""
    mask = mask[:, None, :, None] if tensor.dim() == 4 else mask[:, :, None]
    return mask.expand_as(tensor)


def mask_of(lengths, length):
    return torch.arange(length) < torch.tensor(lengths)[:, None]


def append_rows(tensor, rows):
    """Append (20, d) rows to the tokens of every head or example."""
    return torch.cat([tensor, rows.expand(*tensor.shape[:-2], 20, tensor.shape[-1])], dim=-2)


@over_variants
@pytest.mark.parametrize("masked", [False, True])
def test_c1_padding_changes_nothing(name, features, choices, masked):
    module = mechanism(name, features, choices)
    tensors = inputs(module)
    mask = mask_of([11, 6] if masked else [11, 11], 11)
    garbage = 7 * torch.randn(20, tensors[0].shape[-1], generator=generator(1), dtype=torch.float64)
    longer_mask = F.pad(mask, (0, 20))
    with torch.no_grad():
        expected = run(module, tensors, mask if masked else None)
        for last in (garbage, torch.full_like(garbage, torch.nan)):
            padded = [append_rows(tensor, garbage) for tensor in tensors[:-1]] + [append_rows(tensors[-1], last)]
            difference = run(module, padded, longer_mask)[..., :11, :] - expected
            assert difference[over_rows(mask, difference)].abs().max() < 1e-9


@over_variants
def test_c1_pads_get_no_gradient(name, features, choices):
    module = mechanism(name, features, choices)
    leaves = [tensor.requires_grad_() for tensor in inputs(module, length=9)]
    mask = mask_of([9, 4], 9)
    context = run(module, leaves, mask)
    (context.square() * over_rows(mask, context)).sum().backward()
    for leaf in leaves:
        assert leaf.grad[1, ..., 4:, :].abs().max() == 0
        assert leaf.grad[1, ..., :4, :].abs().max() > 0


@over_variants
def test_c1_left_padding_of_the_whole_model(name, features, choices):
    torch.manual_seed(0)
    model = StudentForSequenceClassification(configuration(name, features, choices)).double().eval()
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
def test_c1_an_example_without_real_tokens_is_finite(name, features, choices):
    module = mechanism(name, features, choices)
    leaves = [tensor.requires_grad_() for tensor in inputs(module, length=5)]
    context = run(module, leaves, mask_of([5, 0], 5))
    context.sum().backward()
    assert context.isfinite().all()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


@over_variants
def test_c2_examples_do_not_meet(name, features, choices):
    module = mechanism(name, features, choices)
    tensors = inputs(module, batch=3)
    for tensor in tensors:
        tensor[1:] *= 9  # a maximum over the batch would show
    mask = mask_of([7, 11, 3], 11)
    alone = run(module, [tensor[:1] for tensor in tensors], mask[:1])
    torch.testing.assert_close(run(module, tensors, mask)[:1], alone, rtol=0, atol=1e-10)


@over_variants
@pytest.mark.parametrize("length", [1, 7, 40])  # below and above the number of features
def test_c3_equals_the_naive_form_with_gradients(name, features, choices, length):
    module = mechanism(name, features, choices)
    mask = mask_of([length, max(1, length // 2)], length)
    results = []
    for function in (run, run_naive):
        leaves = [tensor.requires_grad_() for tensor in inputs(module, length=length)]
        context = function(module, leaves, mask)
        real = over_rows(mask, context)
        weight = torch.randn(context.shape, generator=generator(3), dtype=torch.float64) * real
        parameters = module.feature_parameters()
        gradients = torch.autograd.grad((context * weight).sum(), [*leaves, *parameters], allow_unused=True)
        results.append([context[real], *gradients])
    for fast, naive in zip(*results, strict=True):
        if fast is None or naive is None:  # a parameter that so few tokens do not reach
            assert fast is naive or (fast if naive is None else naive).abs().max() == 0
        else:
            torch.testing.assert_close(fast, naive, rtol=1e-9, atol=1e-9)


def test_c4_softmax_is_its_own_limit():
    module = mechanism("softmax")
    tensors = inputs(module)
    expected = F.scaled_dot_product_attention(*tensors)
    torch.testing.assert_close(run(module, tensors, None), expected, rtol=0, atol=1e-10)


def test_c4_performer_tends_to_softmax_with_more_features():
    query, key, value = (0.5 * tensor for tensor in inputs(mechanism("performer"), length=30))
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
def test_c5_weights_sum_to_one(name, features, choices):
    module = mechanism(name, features, choices)
    if not (module.row_stochastic and module.works_on_heads()):
        return
    query, key, value = inputs(module)
    mask = mask_of([11, 6], 11)
    real = over_rows(mask, value)
    ones = module.attend(query, key, torch.ones_like(value), mask)[real]
    torch.testing.assert_close(ones, torch.ones_like(ones), rtol=0, atol=1e-10)
    shifted = module.attend(query, key, value + 3, mask)[real]
    torch.testing.assert_close(shifted, module.attend(query, key, value, mask)[real] + 3, rtol=0, atol=1e-10)


@over_variants
def test_c5_attention_map_is_what_attend_applies(name, features, choices):
    module = mechanism(name, features, choices)
    mask = mask_of([11, 6], 11)
    if not module.has_attention_map:
        with pytest.raises(ValueError, match="no attention map"):
            module.attention_map(torch.zeros(2, HEADS, 11, HEAD_SIZE), torch.zeros(2, HEADS, 11, HEAD_SIZE), mask)
        return
    query, key, value = (torch.randn(2, HEADS, 11, HEAD_SIZE, generator=generator(seed)).double() for seed in range(3))
    weights = module.attention_map(query, key, mask)
    assert weights.shape == (2, HEADS, 11, 11)
    assert (weights >= 0).all()
    assert weights[1, :, :, 6:].abs().max() == 0
    real = over_rows(mask, value)
    torch.testing.assert_close(
        (weights @ value)[real], module.attend(query, key, value, mask)[real], rtol=0, atol=1e-10
    )


@over_variants
def test_c5_a_sparse_map_is_zero_where_the_mechanism_says_so(name, features, choices):
    module = mechanism(name, features, choices)
    patterned = module.selects_by_content or module.receptive_field(40) is not None
    assert module.has_sparse_map == (module.has_attention_map and patterned)
    if module.has_sparse_map:
        query, key = (torch.randn(2, HEADS, 40, HEAD_SIZE, generator=generator(seed)).double() for seed in range(2))
        assert (module.attention_map(query, key, None) == 0).any()


@over_variants
def test_c6_permutation(name, features, choices):
    """Positional mechanisms must fail to be equivariant: their positions are live."""
    module = mechanism(name, features, choices)
    tensors = inputs(module)
    order = torch.randperm(11, generator=generator(4))
    permuted = run(module, [tensor[..., order, :] for tensor in tensors], None)
    difference = (permuted - run(module, tensors, None)[..., order, :]).abs().max()
    assert difference < 1e-10 if module.permutation_equivariant else difference > 1e-4


class LargestOutput(TorchDispatchMode):
    """Record the size of the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.numel = max([self.numel, *sizes])
        return result


@over_variants
def test_c7_nothing_quadratic_is_built(name, features, choices):
    module = mechanism(name, features, choices, dtype=torch.float32, max_position_embeddings=1024)
    if module.complexity == "quadratic":
        return
    tensors = [tensor.requires_grad_() for tensor in inputs(module, batch=1, length=1024, dtype=torch.float32)]
    with LargestOutput() as largest:
        run(module, tensors, None).sum().backward()
    width = max(FEATURE_COUNT, HEAD_SIZE) if module.complexity == "linear" else 4 * 32  # √1024
    assert 0 < largest.numel <= 4 * HEADS * 1024 * width


def counted_operations(module, length):
    # The counter knows nothing of the fused CPU kernel and would report 0.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        run(module, inputs(module, batch=1, length=length, dtype=torch.float32), None)
    return counter.get_total_flops()


@over_variants
def test_c8_operations_grow_as_stated(name, features, choices):
    module = mechanism(name, features, choices, dtype=torch.float32, max_position_embeddings=1024)
    counted = counted_operations(module, 512)
    if counted == 0:  # sums and Fourier transforms alone, which nobody counts
        return
    growth = counted_operations(module, 1024) / counted
    limits = {"linear": (0, 2.1), "subquadratic": (2, 3), "quadratic": (3.8, 4.2)}
    low, high = limits[module.complexity]
    assert low <= growth <= high


@over_variants
def test_c8_operations_are_what_the_mechanism_says(name, features, choices):
    """The formula behind the FLOPs of a record, against torch's counter."""
    config = configuration(name, features, choices, max_position_embeddings=512)
    module = mechanism(name, features, choices, dtype=torch.float32, max_position_embeddings=512)
    if module.works_on_heads():
        stated = module.core_flops(config, 512)
    else:
        stated = module.flops(config, 512) - 2 * 512 * config.hidden_size**2 * module.has_output_projection
    assert counted_operations(module, 512) == pytest.approx(stated, rel=0.05)


@over_variants
@pytest.mark.parametrize("masked", [False, True])
def test_c9_gradcheck(name, features, choices, masked):
    module = mechanism(name, features, choices, hidden_size=8, num_features=6)
    leaves = [tensor.requires_grad_() for tensor in inputs(module, batch=1, length=7)]
    mask = mask_of([5], 7) if masked else None
    parameters = module.feature_parameters()

    def real_context(*tensors):
        return run(module, tensors[: len(leaves)], mask)[..., : 5 if masked else 7, :]

    assert torch.autograd.gradcheck(real_context, (*leaves, *parameters))


@over_variants
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16_autocast"])
@pytest.mark.parametrize("scale", [0.25, 1.0, 5.0, 30.0])
def test_c10_any_norm_is_finite_and_not_mean_pooling(name, features, choices, precision, scale):
    module = mechanism(name, features, choices, dtype=torch.float32)
    tensors = inputs(module, length=24, dtype=torch.float32)
    mixed = tensors[:-1] if module.works_on_heads() else tensors
    for tensor in mixed:
        tensor *= scale
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16_autocast": torch.float16}[precision]
    if precision == "bf16" and not module.works_on_heads():
        module = module.to(dtype)  # its linear maps take what they are given
    leaves = [tensor.to(dtype).requires_grad_() for tensor in tensors]
    with torch.autocast("cpu", torch.float16, enabled=precision == "fp16_autocast"):
        context = run(module, leaves, None)
    # Not the mean square: that of a product of three states has gradients beyond fp16.
    context.float().square().mean().sqrt().backward()
    assert context.dtype == dtype
    assert context.isfinite().all()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)
    if not (module.works_on_heads() and module.row_stochastic):
        return
    exact = run(mechanism(name, features, choices), [tensor.double() for tensor in tensors], None)
    uniform = tensors[-1].double().mean(2, keepdim=True)
    if (exact - uniform).norm() / uniform.norm() > 0.05:
        assert (context.double() - uniform).norm() / uniform.norm() > 1e-2


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
def test_c12_receptive_field(name, features, choices):
    """A token depends exactly on the real tokens that the mechanism says it sees; every one where it says nothing.

    Where the content decides, on some of them.
    """
    module = mechanism(name, features, choices)
    length, real = 24, 20
    # Several examples: features of ReLU leave pairs of tokens without weight by chance.
    batch = 1 if module.selects_by_content else 4
    *others, last = inputs(module, batch=batch, length=length)
    mask = mask_of([real] * batch, length)
    weight = torch.randn(last.shape[-1], generator=generator(1), dtype=torch.float64)  # a plain sum may cancel

    def output(tensor):
        return (run(module, [*others, tensor], mask) @ weight).sum(0)

    jacobian = torch.autograd.functional.jacobian(output, last)
    influence = jacobian.abs().sum(-1)
    # ([H,] N out, B, [H,] N in) to (N out, N in), in any example and head
    influence = influence.sum((0, 2, 3)) if module.works_on_heads() else influence.sum(1)
    seen = module.receptive_field(real)
    seen = torch.ones(real, real, dtype=torch.bool) if seen is None else seen
    depends = influence[:real, :real] > 0
    if module.selects_by_content:
        assert (depends <= seen).all()
        assert not depends.all()
        assert depends.any(-1).all()
    else:
        assert (depends == seen).all()
    assert (influence[:real, real:] == 0).all()


@pytest.mark.parametrize("name", ATTENTIONS)
def test_num_features_has_an_effect_where_the_mechanism_says_so(name):
    few, many = (mechanism(name, num_features=count) for count in (3, 12))
    shapes = [{key: tensor.shape for key, tensor in module.state_dict().items()} for module in (few, many)]
    tensors = inputs(few, length=40)
    same = shapes[0] == shapes[1] and torch.equal(run(few, tensors, None), run(many, tensors, None))
    assert same is not ATTENTIONS[name].uses_num_features
    count = StudentConfig(attention=name).num_features
    assert (count is None) is same


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
