"""What is read of a teacher's layers is the same in every family, and so are its windows, positions and FLOPs."""

import json

import pytest
import torch
from helpers.closeness import LAST_BITS, assert_close
from helpers.families import batch_for, tiny_classifier, tiny_tokenizer
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification, MPNetConfig, MPNetForSequenceClassification

from distill.benchmark.model_copies import extend_positions, is_speed_only, make_inputs
from distill.models.flops import model_flops
from distill.models.hooks import CAPTURABLE, capture, read_teacher
from distill.models.positions import find_positions, positions_of
from distill.models.saving import for_model
from distill.models.windowed_bert import ReadsWindows, reading_windows, window_lengths
from distill.training.dropout import BitwiseDropout, set_dropout
from students import student_from_teacher
from students.families import FAMILIES, encoder_layers

over_families = pytest.mark.parametrize("kind", FAMILIES)
LAYERS = [0, 1, 2, 3]


def both(kind, **settings):
    """Return a teacher of four layers and its softmax student, which computes the same."""
    teacher = tiny_classifier(kind, num_hidden_layers=4, **settings)
    return teacher, student_from_teacher(teacher, layer_map=LAYERS, attention="softmax")[0].eval()


@over_families
def test_what_is_captured_of_a_teacher_is_what_its_student_computes(kind):
    teacher, student = both(kind)
    inputs = batch_for(teacher)
    real = inputs["attention_mask"].bool()
    wanted = {name: [2, 0, 3] for name in CAPTURABLE}
    captured = {}
    with torch.no_grad():
        for name, model in (("teacher", teacher), ("student", student)):
            with capture(model, wanted) as captured[name]:
                model(**inputs)
        states = teacher(**inputs, output_hidden_states=True).hidden_states
    for name in CAPTURABLE:
        for theirs, ours in zip(captured["teacher"][name], captured["student"][name], strict=True):
            assert_close(theirs[real], ours[real])
        assert not torch.allclose(captured["teacher"][name][0], captured["teacher"][name][1], atol=1e-2)
    for position, layer in enumerate(wanted["hidden_states"]):
        assert_close(captured["teacher"]["hidden_states"][position], states[layer + 1], LAST_BITS)
        assert_close(captured["teacher"]["layer_input"][position], states[layer], LAST_BITS)


def test_layers_that_share_weights_are_told_apart_in_every_pass():
    teacher, _ = both("albert")
    inputs = batch_for(teacher)
    with torch.no_grad(), capture(teacher, {"hidden_states": [1]}) as captured:
        teacher(**inputs)
        first = captured["hidden_states"][0]
        teacher(**inputs)
        assert torch.equal(captured["hidden_states"][0], first)


@over_families
def test_positions_are_those_of_tokens(kind):
    teacher, student = both(kind)
    assert positions_of(teacher) == positions_of(student) == 32
    assert not is_speed_only([teacher, student], 32)
    assert is_speed_only([teacher], 33)
    assert is_speed_only([student], 33)
    for model in (teacher, student):
        longer = extend_positions(model, 48)
        assert positions_of(longer) == 48
        inputs = make_inputs(longer, 2, 48, vocabulary_size=50, device="cpu")
        assert longer(**inputs).logits.isfinite().all()
        assert positions_of(model) == 32


def test_positions_of_other_models():
    small = MPNetConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    assert find_positions(MPNetForSequenceClassification(small)) == 510


@over_families
def test_windows_by_hand(kind):
    """Two windows of a text, and one of a text that fits, as they are when they are read alone."""
    teacher = tiny_classifier(kind, max_position_embeddings=6)
    windowed = reading_windows(teacher)
    assert isinstance(windowed, ReadsWindows)
    assert window_lengths(windowed, 9) == [6, 5]
    pad = teacher.config.pad_token_id

    def inputs(rows, width):
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": ids.ne(pad).long()}

    long, short = [40, 11, 12, 13, 14, 15, 16, 17, 41], [40, 18, 41]
    texts = inputs([long, short], 12) | {"token_type_ids": torch.zeros(2, 12, dtype=torch.long)}
    first, second, alone = [40, 11, 12, 13, 14, 41], [40, 15, 16, 17, 41], [40, 18, 41]
    with torch.no_grad():
        parts = [teacher(**inputs([row], len(row))).logits for row in (first, second, alone)]
        expected = torch.cat([4 / 7 * parts[0] + 3 / 7 * parts[1], parts[2]])
        assert_close(windowed(**texts).logits, expected)
        assert_close(read_teacher(windowed, {"hidden_states": [1]}, texts)["logits"], expected)


@over_families
def test_a_teacher_that_reads_windows_is_saved_as_a_plain_one(kind, tmp_path):
    teacher = tiny_classifier(kind)
    reading_windows(teacher).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [FAMILIES[kind].classifier]
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(teacher)
    inputs = batch_for(teacher)
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, teacher(**inputs).logits)


@over_families
def test_token_types_that_a_model_has_none_of_are_left_out(kind):
    teacher = tiny_classifier(kind)
    inputs = batch_for(teacher) | {"token_type_ids": torch.ones(3, 12, dtype=torch.long)}
    if getattr(teacher.config, "type_vocab_size", 0) < 2:
        with torch.no_grad():
            expected = teacher(**batch_for(teacher)).logits
            assert_close(reading_windows(teacher)(**inputs).logits, expected, LAST_BITS)


@over_families
def test_dropout_is_the_familys_own(kind):
    rates = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.2, "classifier_dropout": 0.1}
    teacher = tiny_classifier(kind, **rates)
    built = {name: each.p for name, each in teacher.named_modules() if isinstance(each, torch.nn.Dropout)}
    assert set(built.values()) == {0.3, 0.2, 0.1}
    set_dropout(teacher, False)
    inputs = batch_for(teacher)
    with torch.no_grad():
        assert_close(teacher.train()(**inputs).logits, teacher.eval()(**inputs).logits, LAST_BITS)
    set_dropout(teacher, True)
    assert {name: each.p for name, each in teacher.named_modules() if isinstance(each, BitwiseDropout)} == built
    with torch.no_grad():
        assert not torch.equal(teacher.train()(**inputs).logits, teacher(**inputs).logits)


@over_families
def test_counted_flops_are_those_of_the_family(kind):
    """Counted with eager attention, whose products torch sees; the teacher's and its student's."""
    teacher, student = both(kind)
    teacher.set_attn_implementation("eager")
    ids = torch.full((1, 12), 7)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        teacher(input_ids=ids)
    assert model_flops(teacher.config, 12) == counter.get_total_flops()
    assert len(encoder_layers(student)) == 4
    embedding = model_flops(student.config, 12) - student.config.attention_flops(12)
    student.config.embedding_size = None
    projected = {"electra": 2 * 12 * 8 * 16, "albert": 2 * 12 * 8 * 16}
    without = model_flops(student.config, 12) - student.config.attention_flops(12)
    assert embedding - without == projected.get(kind, 0)


@over_families
def test_a_tokenizer_is_cut_at_the_positions_of_tokens(kind):
    teacher, student = both(kind)
    tokenizer = tiny_tokenizer(kind, ["a good film", "no plot at all"] * 3, 300)
    assert for_model(tokenizer, teacher).model_max_length == for_model(tokenizer, student).model_max_length == 32
