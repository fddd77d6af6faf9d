"""Texts longer than a BERT's positions: cut into windows, put together again, averaged, saved as a plain BERT."""

import json

import numpy as np
import pytest
import torch
from helpers.tiny_bert import tiny_bert
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from distill.benchmark.model_copies import is_speed_only
from distill.data.batching import TokenizedExamples
from distill.evaluation.comparison import windows_read
from distill.evaluation.record_parts import WindowsRead
from distill.models.hooks import capture, read_teacher
from distill.models.windowed_bert import WindowedBert, cut, reading_windows, window_lengths
from distill.objectives.layer_fidelity import layer_fidelity
from students import student_from_teacher

WINDOW = 6
START, END = 101, 102


def batch(*texts: list[int], width: int = 12) -> dict[str, torch.Tensor]:
    rows = [[START, *text, END] for text in texts]
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "token_type_ids": torch.zeros_like(ids)}


LONG, SHORT, FULL = [1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2], [5, 6, 7, 8]


@pytest.fixture(scope="module")
def teacher():
    return reading_windows(tiny_bert(vocab_size=110, max_position_embeddings=WINDOW, num_labels=3)).eval()


def test_windows_by_hand():
    windows = cut(batch(LONG, SHORT, FULL), WINDOW)
    assert windows.inputs["input_ids"].tolist() == [
        [START, 1, 2, 3, 4, END],
        [START, 5, 6, 7, 8, END],
        [START, 9, END, 0, 0, 0],
        [START, 1, 2, END, 0, 0],
        [START, 5, 6, 7, 8, END],
    ]
    assert windows.inputs["attention_mask"].sum(1).tolist() == [6, 6, 3, 4, 6]
    assert windows.texts.tolist() == [0, 0, 0, 1, 2]
    torch.testing.assert_close(windows.shares, torch.tensor([4 / 9, 4 / 9, 1 / 9, 1, 1]))


@pytest.mark.parametrize("length", range(1, 11))
def test_what_was_cut_joins_to_what_it_was(length):
    inputs = batch(list(range(1, length + 1)), SHORT)
    windows = cut(inputs, WINDOW)
    joined = windows.join(windows.inputs["input_ids"][..., None].double())
    torch.testing.assert_close(joined[..., 0].round().long(), inputs["input_ids"], rtol=0, atol=0)
    assert window_lengths(reading_windows(tiny()), length + 2) == windows.inputs["attention_mask"][:-1].sum(1).tolist()


def tiny() -> BertForSequenceClassification:
    return tiny_bert(num_hidden_layers=1, max_position_embeddings=WINDOW)


def test_logits_and_states_are_those_of_the_windows(teacher):
    inputs = batch(LONG, SHORT, FULL)
    plain = BertForSequenceClassification(teacher.config).eval()
    plain.load_state_dict(teacher.state_dict())
    parts = [[1, 2, 3, 4], [5, 6, 7, 8], [9]]
    with torch.no_grad(), capture(plain, {"hidden_states": [1]}) as seen:
        logits, states = [], []
        for part in parts:
            logits.append(plain(**batch(part, width=len(part) + 2)).logits[0])
            states.append(seen["hidden_states"][0][0])
        got = teacher(**inputs).logits
        short = plain(**batch(SHORT, width=4)).logits[0]
        read = read_teacher(teacher, {"hidden_states": [1]}, inputs)
    torch.testing.assert_close(got[0], (4 * logits[0] + 4 * logits[1] + logits[2]) / 9)
    torch.testing.assert_close(got[1], short)
    torch.testing.assert_close(read["logits"], got)
    joined = read["hidden_states"][0]
    torch.testing.assert_close(joined[0, 1:11], torch.cat([states[0][1:5], states[1][1:5], states[2][1:]]))
    torch.testing.assert_close(joined[0, 0], (4 * states[0][0] + 4 * states[1][0] + states[2][0]) / 9)
    assert joined[0, 11:].abs().sum() == joined[1, 4:].abs().sum() == 0


def test_a_text_that_fits_is_read_as_ever(teacher):
    plain = BertForSequenceClassification(teacher.config).eval()
    plain.load_state_dict(teacher.state_dict())
    inputs = batch(SHORT, FULL, width=6)
    with torch.no_grad():
        torch.testing.assert_close(teacher(**inputs).logits, plain(**inputs).logits, rtol=0, atol=0)


def test_it_trains_through_all_windows(teacher):
    inputs = batch(LONG)
    table = teacher.get_input_embeddings().weight
    (gradient,) = torch.autograd.grad(teacher(**inputs).logits.sum(), table)
    assert (gradient[1:10].abs().sum(1) > 0).all()


def test_it_is_saved_as_a_plain_bert(teacher, tmp_path):
    teacher.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["BertForSequenceClassification"]
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is BertForSequenceClassification
    assert isinstance(reading_windows(loaded), WindowedBert)
    assert reading_windows(loaded.train()).training
    assert not reading_windows(loaded.eval()).training


def test_other_models_stay_as_they_are(teacher):
    student, _ = student_from_teacher(teacher, layer_map=[0, 1], attention="softmax")
    assert reading_windows(student) is student
    assert window_lengths(student, 12) == [12]


def test_a_student_with_softmax_starts_as_its_teacher_on_one_window(teacher):
    """Position by position the student's table is that of the windows, so that below one window nothing differs."""
    student, _ = student_from_teacher(teacher, layer_map=[0, 1], attention="softmax", positions=16)
    table = teacher.bert.embeddings.position_embeddings.weight
    longer = student.bert.embeddings.position_embeddings.weight
    expected = [0, *([1, 2, 3, 4] * 4)[:15]]
    torch.testing.assert_close(longer, table[expected], rtol=0, atol=0)
    assert student.config.max_position_embeddings == 16
    embed = student.eval().bert.embeddings
    windows = cut(batch(LONG), WINDOW)
    inside = teacher.bert.embeddings(windows.inputs["input_ids"])
    torch.testing.assert_close(embed(batch(LONG)["input_ids"])[:, 1:10], windows.join(inside)[:, 1:10])


def test_where_a_student_has_the_positions_the_teacher_reads_windows(teacher):
    short, _ = student_from_teacher(teacher, layer_map=[0], attention="softmax")
    longer, _ = student_from_teacher(teacher, layer_map=[0], attention="softmax", positions=16)
    assert is_speed_only([teacher, short], 12)
    assert not is_speed_only([teacher, longer], 12)


def test_the_record_says_how_many_texts_need_windows(teacher):
    lengths = np.array([4, 6, 7, 12])
    offsets = np.concatenate([[0], lengths.cumsum()])
    nothing = np.zeros(offsets[-1])
    examples = TokenizedExamples(nothing, nothing, offsets, np.zeros(4), np.arange(4))
    assert windows_read(teacher, {"validation": examples}) == WindowsRead(tokens=WINDOW, share_of_texts=0.5)
    assert windows_read(tiny(), {"validation": examples}) is None


def test_fidelity_of_long_texts_is_one_of_an_exact_copy_in_one_window(teacher):
    """A student that is the teacher copies what lies in one window, and not what lies in several."""
    student, _ = student_from_teacher(teacher, layer_map=[0, 1], attention="softmax", positions=16)

    def fidelity(text: list[int]) -> float:
        ids = np.array([START, *text, END])
        labels = np.zeros(1)
        examples = TokenizedExamples(ids, np.zeros(len(ids)), np.array([0, len(ids)]), labels, np.arange(1))
        return layer_fidelity(teacher, student, [0, 1], examples)[0]["hidden_states"]

    assert fidelity(SHORT) == pytest.approx(1, abs=1e-4)
    assert fidelity(LONG) < 0.999
