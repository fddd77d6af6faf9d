"""ABC and Luna: slots that hold one token each are softmax attention, and Luna's go on from layer to layer."""

import torch
from helpers.tiny_bert import tiny_bert
from torch.nn import functional as F

from students import StudentConfig, StudentForSequenceClassification, student_from_teacher
from students.attention.abc import ABCAttention
from students.attention.luna import LunaAttention

LENGTH, HEADS, HEAD_SIZE = 6, 2, 8
SIZES = {
    "vocab_size": 40,
    "hidden_size": HEADS * HEAD_SIZE,
    "num_attention_heads": HEADS,
    "num_hidden_layers": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
}


def students(attention, **options):
    teacher = tiny_bert(**SIZES)
    student, report = student_from_teacher(
        teacher, layer_map=[0, 1], attention=attention, num_features=LENGTH, **options
    )
    return teacher.double(), student.double().eval(), report


def batch():
    return {"input_ids": torch.randint(1, 40, (3, 10), generator=torch.Generator().manual_seed(0))}


def test_c4_abc_with_one_token_per_slot_is_softmax():
    config = StudentConfig(**SIZES, attention="abc", num_features=LENGTH)
    module = ABCAttention(config, layer=0).double()
    random = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, HEADS, LENGTH, HEAD_SIZE, generator=random, dtype=torch.float64) for _ in range(3)
    )
    with torch.no_grad():
        module.slots.copy_(1000 * torch.linalg.pinv(key[0]))  # k_n W = 1000 in slot n alone
    expected = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(module.attend(query, key, value, None), expected, rtol=0, atol=1e-10)


def test_abc_slots_ask_like_the_teachers_queries():
    _, student, report = students("abc")
    assert [name.rpartition(".")[2] for name in report.derived] == ["slots", "slots"]
    slots = student.bert.encoder.layer[1].attention.self.slots
    query = student.bert.encoder.layer[1].attention.self.query
    expected = 2 * query.weight.square().sum(-1).mean().sqrt() / HEAD_SIZE**0.5
    assert 0.5 < slots.square().mean().sqrt() / expected < 2
    assert slots.std(-1).min() > 0.1 * slots.std()  # no two slots alike


def test_c4_luna_with_one_token_per_slot_is_softmax():
    _, student, _ = students("luna")
    module = student.bert.encoder.layer[0].attention.self
    states = torch.randn(1, LENGTH, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        query, key, value = (
            module.split_heads(project(states)) for project in (module.query, module.key, module.value)
        )
        one_each = 1000 * torch.linalg.pinv(key[0]).mT  # (H, l, d), whose product with k_n is 1000 for slot n alone
        module.extra_tokens.copy_(one_each.transpose(0, 1).flatten(1))
        module.pack_query.load_state_dict({"weight": torch.eye(16), "bias": torch.zeros(16)})
        expected = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        torch.testing.assert_close(module(states)[0], expected, rtol=0, atol=1e-10)


def test_luna_reads_keys_and_values_of_packed_tokens():
    """Per head: packing the hidden states first, and projecting them then, is the same."""
    _, student, _ = students("luna")
    module = student.bert.encoder.layer[0].attention.self
    states = torch.randn(1, 9, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    query, key = (module.split_heads(project(states)) for project in (module.query, module.key))
    pack_query = module.split_heads(module.pack_query(module.extra_tokens)[None])
    weights = (pack_query @ key.mT / HEAD_SIZE**0.5).softmax(-1)
    contexts = []
    for head in range(HEADS):
        packed_states = weights[:, head] @ states
        keys, values = (module.split_heads(project(packed_states))[:, head] for project in (module.key, module.value))
        contexts.append(F.scaled_dot_product_attention(query[:, head], keys, values))
    torch.testing.assert_close(module(states)[0], torch.cat(contexts, dim=-1), rtol=0, atol=1e-10)


def test_luna_packs_any_order_of_the_tokens_alike():
    module = students("luna")[1].bert.encoder.layer[0].attention.self
    states = torch.randn(2, 10, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(module(states)[1], module(states.flip(1))[1], rtol=0, atol=1e-10)


def test_luna_carries_its_extra_tokens_to_the_next_layer():
    _, student, _ = students("luna")
    first, second = (layer.attention.self for layer in student.bert.encoder.layer)
    seen = []
    second.register_forward_hook(lambda module, inputs, output: seen.append((inputs, output[0])))
    first.register_forward_hook(lambda module, inputs, output: seen.append((inputs, output[1])))
    with torch.no_grad():
        student(**batch(), output_hidden_states=True)
        (first_inputs, carried), ((hidden_states, mask, state, _), context) = seen
        alone = second(hidden_states, mask)[0]
    assert first_inputs[2] is None
    assert state is carried
    torch.testing.assert_close(carried.mean(-1), torch.zeros(3, LENGTH, dtype=torch.float64))
    assert alone.isfinite().all()
    assert (alone - context).abs().max() > 1e-3


def test_luna_carries_past_a_layer_of_softmax():
    torch.manual_seed(0)
    config = StudentConfig(**SIZES | {"num_hidden_layers": 3}, attention="luna", softmax_layers=[1])
    model = StudentForSequenceClassification(config).eval()
    states = []
    for layer in model.bert.encoder.layer:
        layer.attention.self.register_forward_pre_hook(lambda module, inputs: states.append(inputs[2]))
    model(**batch())
    assert isinstance(model.bert.encoder.layer[0].attention.self, LunaAttention)
    assert states[0] is None
    assert states[1] is states[2]


def test_gradient_checkpointing_carries_the_state():
    torch.manual_seed(0)
    config = StudentConfig(**SIZES, attention="luna", hidden_dropout_prob=0.0, classifier_dropout=0.0)
    model = StudentForSequenceClassification(config).train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(**batch(), labels=torch.tensor([0, 1, 1])).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(plain, recomputed) for plain, recomputed in zip(*gradients, strict=True))
