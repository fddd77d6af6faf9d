"""Students of every family whose layers are BERT's: the teacher's logits, and what is copied, saved and refused."""

import json

import pytest
import torch
from helpers.closeness import assert_close
from helpers.families import FORMS, batch_for, tiny_classifier
from helpers.small_students import logits_elsewhere
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from students import ATTENTIONS, StudentForSequenceClassification, exact_form, student_from_teacher
from students.families import FAMILIES, encoder_layers, why_not

over_forms = pytest.mark.parametrize(("kind", "form"), FORMS, ids=[" ".join([kind, *form]) for kind, form in FORMS])
over_families = pytest.mark.parametrize("kind", FAMILIES)


def full(teacher, **options):
    """Return a student of all layers."""
    layers = list(range(teacher.config.num_hidden_layers))
    student, report = student_from_teacher(teacher, layer_map=layers, **{"attention": "softmax"} | options)
    return student.eval(), report


@over_forms
def test_a_softmax_student_of_all_layers_is_the_teacher(kind, form):
    teacher = tiny_classifier(kind, num_labels=3, **form)
    student, report = full(teacher)
    inputs = batch_for(teacher)
    with torch.no_grad():
        expected = teacher(**inputs).logits
        assert_close(student(**inputs).logits, expected)
        assert_close(student(**inputs, output_hidden_states=True).logits, expected)
    assert (expected.std(0) > 0.01).all()
    assert report.new == ()
    assert set(report.derived) <= {"bert.embeddings.token_type_embeddings.weight"}
    assert bool(report.derived) is (kind == "distilbert")


@over_families
def test_texts_of_all_positions_and_embeddings_that_are_given(kind):
    teacher = tiny_classifier(kind)
    student, _ = full(teacher)
    inputs = batch_for(teacher, (32, 31), 32)
    with torch.no_grad():
        assert_close(student(**inputs).logits, teacher(**inputs).logits)
        words = teacher.get_input_embeddings()(inputs["input_ids"])
        given = {"inputs_embeds": words, "attention_mask": inputs["attention_mask"]}
        assert_close(student(**given).logits, teacher(**given).logits)
    with pytest.raises(ValueError, match="33 tokens are more than the 32 positions"):
        student(input_ids=torch.full((1, 33), 7))


@pytest.mark.parametrize("kind", ["roberta", "xlm-roberta", "camembert"])
def test_positions_are_counted_past_padding_wherever_it_stands(kind):
    teacher = tiny_classifier(kind)
    student, _ = full(teacher)
    ids = batch_for(teacher, (12, 12))["input_ids"]
    ids[0, :4] = teacher.config.pad_token_id
    ids[1, 3] = teacher.config.pad_token_id
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        assert_close(student(**inputs).logits, teacher(**inputs).logits)


@over_families
def test_token_types_are_for_those_that_tell_them_apart(kind):
    """Tokenizers may tell the texts of a pair apart for a model that does not."""
    teacher = tiny_classifier(kind)
    student, _ = full(teacher)
    inputs = batch_for(teacher)
    plain = inputs | {"token_type_ids": torch.zeros_like(inputs["input_ids"])}
    typed = inputs | {"token_type_ids": inputs["attention_mask"]}
    with torch.no_grad():
        same = torch.equal(student(**plain).logits, student(**typed).logits)
    assert same is (getattr(teacher.config, "type_vocab_size", 0) < 2)


@over_families
def test_a_bare_encoder_gets_a_new_head_and_keeps_what_it_has(kind):
    teacher = tiny_classifier(kind)
    student, report = full(teacher.base_model)
    head = {"classifier.weight", "classifier.bias"}
    own_pooler = "pooler" in dict(teacher.base_model.named_children())
    pooler = set() if own_pooler else {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert set(report.new) == head | pooler
    inputs = batch_for(teacher)
    with torch.no_grad():
        expected = teacher.base_model(**inputs).last_hidden_state
        assert_close(student.bert(**inputs).last_hidden_state[0], expected[0])


@over_families
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_every_mechanism_can_be_built(kind, attention):
    teacher = tiny_classifier(kind)
    options = ATTENTIONS[attention].small_options
    student, report = student_from_teacher(teacher, layer_map=[1], attention=attention, attention_options=options)
    assert sorted(report.copied + report.derived + report.new) == sorted(student.state_dict())
    assert not [name for name in report.new if ".self." not in name], "all but the mechanism is the teacher's"
    inputs = batch_for(teacher)
    tight = {name: values[1:2, :5] for name, values in inputs.items()}
    with torch.no_grad():
        wide = student.eval()(**{name: values[1:2] for name, values in inputs.items()}).logits
        assert_close(wide, student(**tight).logits)


@over_families
def test_a_student_is_a_teacher_and_has_an_exact_form(kind):
    teacher = tiny_classifier(kind)
    first, _ = full(teacher)
    second, report = full(first, attention="performer", exact_up_to=12)
    assert {name.rpartition(".")[2] for name in report.new} == {"projection", "log_temperature", "redraw_index"}
    inputs = batch_for(teacher)
    with torch.no_grad():
        expected = teacher(**inputs).logits
        for student in (second.eval(), exact_form(second)):
            assert_close(student(**inputs).logits, expected)


@over_families
def test_more_positions_repeat_those_of_a_window(kind):
    teacher = tiny_classifier(kind)
    student, _ = full(teacher, positions=64)
    table, whole = (model.base_model.embeddings.position_embeddings.weight for model in (teacher, student))
    first = len(table) - 32
    assert len(whole) == 64 + first
    assert torch.equal(whole[: first + 31], table[: first + 31])
    assert torch.equal(whole[first + 31 : first + 61], table[first + 1 : first + 31])
    assert student(**batch_for(teacher, (64,), 64)).logits.isfinite().all()


@over_families
def test_ten_steps_of_training_move_every_weight(kind):
    """Also those that a family has and BERT has not; the row of padding stays what it is."""
    teacher = tiny_classifier(kind)
    student, _ = full(teacher, attention="performer", features="learned", num_features=8)
    before = {name: values.clone() for name, values in student.named_parameters()}
    optimizer = torch.optim.AdamW(student.train().parameters(), lr=1e-3)
    for _ in range(10):
        student(**batch_for(teacher), labels=torch.tensor([0, 1, 1])).loss.backward()
        optimizer.step()
    still = {name for name, values in student.named_parameters() if torch.equal(values, before[name])}
    assert not still
    if (offset := student.config.position_offset) > 0:
        assert student.bert.embeddings.position_embeddings.weight.grad[offset - 1].abs().max() == 0


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The logits of saved students, from a process that has their folders alone."""
    folder = tmp_path_factory.mktemp("elsewhere")
    inputs = {"input_ids": torch.tensor([[7, 9, 11, 13, 8]])}
    expected = {}
    for kind in FAMILIES:
        student, _ = full(tiny_classifier(kind), attention="performer", num_features=8)
        student.save_pretrained(folder / "students" / kind)
        with torch.no_grad():
            expected[kind] = student(**inputs).logits
    return expected, logits_elsewhere(inputs, folder), folder / "students"


@over_families
def test_saved_students_load_where_there_is_nothing_else(kind, elsewhere):
    expected, got, folder = elsewhere
    assert_close(got[kind], expected[kind])
    here = AutoModelForSequenceClassification.from_pretrained(folder / kind)
    assert isinstance(here, StudentForSequenceClassification)
    assert_close(here(input_ids=torch.tensor([[7, 9, 11, 13, 8]])).logits, expected[kind])


@over_families
def test_a_saved_student_says_only_what_is_not_berts(kind, elsewhere):
    config = json.loads((elsewhere[2] / kind / "config.json").read_text())
    own = {"position_offset", "embedding_size", "pooler_act"} & set(config)
    assert own == {
        "bert": set(),
        "electra": {"embedding_size", "pooler_act"},
        "distilbert": {"pooler_act"},
        "albert": {"embedding_size"},
    }.get(kind, {"position_offset"})
    assert not {"dim", "n_layers", "num_hidden_groups", "dropout"} & set(config)
    assert config["hidden_size"] == 16


def test_albert_stands_in_its_layers_as_often_as_it_computes():
    one = encoder_layers(tiny_classifier("albert", num_hidden_layers=4))
    assert len(one) == 4
    assert len(set(map(id, one))) == 1
    two = encoder_layers(tiny_classifier("albert", num_hidden_layers=4, num_hidden_groups=2))
    assert [layer is two[0] for layer in two] == [True, True, False, False]


REFUSED = {
    "mpnet": ({}, "is a 'mpnet', whose attention has a bias"),
    "gpt2": ({}, "is a 'gpt2', whose layers are not BERT's: those of bert, roberta"),
    "deberta-v2": ({}, "is a 'deberta-v2'"),
    "roberta": ({"is_decoder": True}, "is a decoder"),
    "electra": ({"add_cross_attention": True, "is_decoder": True}, "is a decoder"),
    "albert": ({"inner_group_num": 2}, "inner_group_num 2"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_other_layers_is_refused(kind, make_bert):
    settings, expected = REFUSED[kind]
    config = AutoConfig.for_model(kind, **settings)
    assert expected in why_not(config)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    with pytest.raises(ValueError, match="the teacher must be a BERT encoder, this one is a"):
        student_from_teacher(model, layer_map=[0], attention="softmax")
