"""What could be used instead of the student: measured where it can be, null with a reason where not."""

import tempfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.closeness import assert_close

from distill.benchmark.conditions import Models
from distill.config.schema import ComparisonConfig
from distill.data.batching import median_length
from distill.evaluation.comparison import ComparisonSetup
from distill.evaluation.metrics import compute_metrics
from distill.evaluation.predict import predict_logits
from distill.export import alternative_speed, alternatives, formats
from distill.export.alternatives import ONNX, SOFTMAX, measure_alternatives
from distill.export.fused_onnx import export_fused, quantize_fused
from distill.export.onnx import OnnxClassifier
from distill.models.windowed_bert import reading_windows
from distill.tasks import TASKS
from students import student_from_teacher

SETTINGS = ComparisonConfig(batch_sizes=[4, 1], lengths=[8, 24, 64, 1024], seconds_per_point=0.02, resamples=100)
TASK = TASKS["sst2"]


@pytest.fixture
def scene(make_bert, make_examples):
    """Return a function that measures the alternatives of a two-layer teacher and its one-layer student."""
    teacher = make_bert()
    student = student_from_teacher(teacher, layer_map=[1], attention="performer", num_features=8)[0].eval()
    softmax = student_from_teacher(teacher, layer_map=[1], attention="softmax")[0].eval()
    validation = {"validation": make_examples(20)}

    def measure(teacher=teacher, student=student, load=lambda: softmax, settings=SETTINGS):
        setup = ComparisonSetup(TASK, validation, settings, "cpu")
        return measure_alternatives(setup, Models(teacher, student), setup.predict(teacher), softmax_student=load)

    measure.teacher, measure.softmax, measure.examples = teacher, softmax, validation["validation"]
    return measure


def padded_inputs(batch_size, length):
    generator = torch.Generator().manual_seed(length)
    mask = (torch.arange(length) < torch.arange(length, length - batch_size, -1).clamp(min=1)[:, None]).long()
    ids = torch.randint(5, 60, (batch_size, length), generator=generator) * mask
    types = torch.randint(0, 2, ids.shape, generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def test_the_fusions_of_bert_apply_and_change_no_logit(make_bert, tmp_path):
    teacher = make_bert(num_layers=3, num_labels=4)
    fused = export_fused(teacher, tmp_path / "fused.onnx")
    assert fused == {"EmbedLayerNormalization": 1, "Attention": 3, "BiasGelu": 3, "SkipLayerNormalization": 6}
    assert teacher.config._attn_implementation == "sdpa"  # that of the teacher itself stays
    model = OnnxClassifier(tmp_path / "fused.onnx")
    for shape in ((1, 1), (1, 32), (3, 7), (9, 20)):  # other sizes than the traced one; rows end in padding
        inputs = padded_inputs(*shape)
        with torch.no_grad():
            expected = teacher(**inputs).logits
        assert expected.abs().max() > 0.1
        assert_close(model(**inputs).logits, expected)


def test_int8_weights_are_smaller_and_answer_nearly_the_same(make_bert, tmp_path):
    teacher = make_bert(hidden_size=128, intermediate_size=256)
    export_fused(teacher, tmp_path / "fused.onnx")
    quantize_fused(tmp_path / "fused.onnx", tmp_path / "int8.onnx")
    assert (tmp_path / "int8.onnx").stat().st_size < 0.4 * (tmp_path / "fused.onnx").stat().st_size
    inputs = padded_inputs(6, 20)
    got = OnnxClassifier(tmp_path / "int8.onnx")(**inputs).logits
    with torch.no_grad():
        expected = teacher(**inputs).logits
    assert got.isfinite().all()
    assert 0 < (got - expected).abs().max() < 0.25 * expected.abs().max()


def test_entries_hold_quality_size_and_speed(scene):
    fp32, int8, softmax = entries = scene()
    assert [entry.name for entry in entries] == [f"{ONNX} fp32", f"{ONNX} int8", SOFTMAX]
    assert [(entry.format, entry.dtype) for entry in entries] == [
        ("onnx", "float32"),
        ("onnx", "int8"),
        ("torch", "float32"),
    ]
    assert all(entry.reason is None for entry in entries)
    labels = scene.examples.labels
    for entry, model in ((fp32, scene.teacher), (softmax, scene.softmax)):
        logits = predict_logits(model, scene.examples, device="cpu")
        assert entry.metrics == compute_metrics(TASK, logits, labels)
    kept = fp32.retention["accuracy"]
    assert (kept.value, kept.low) == (1.0, None)
    assert "too few" in kept.reason, "the same answers to a handful of texts are no certainty"
    assert fp32.agreement == 1.0
    share = softmax.metrics["accuracy"] / fp32.metrics["accuracy"]
    assert softmax.retention["accuracy"].value == pytest.approx(share)
    assert fp32.megabytes > 0
    assert int8.megabytes > 0
    assert softmax.megabytes is None


def test_speeds_are_taken_in_the_same_rounds_up_to_the_positions(scene):
    entries = scene()
    median = median_length({"validation": scene.examples})
    assert median % 8 == 0
    for entry in entries:
        assert [point.length for point in entry.speed] == sorted({8, median, 24})
        assert {(point.device, point.dtype, point.batch_size) for point in entry.speed} == {("cpu", entry.dtype, 1)}
    for together in zip(*(entry.speed for entry in entries), strict=True):
        assert len({(point.teacher_ms, point.student_ms) for point in together}) == 1
        for point in together:
            assert point.speedup == pytest.approx(point.teacher_ms / point.alternative_ms)
            assert point.over_student == pytest.approx(point.student_ms / point.alternative_ms)
            assert point.low <= point.speedup <= point.high


def test_one_thread_is_timed_and_all_that_torch_has(scene, monkeypatch):
    """What has threads of its own is loaded again for each; afterwards torch has what it had."""
    loaded = []

    def load(path):
        loaded.append(torch.get_num_threads())
        return OnnxClassifier(path)

    monkeypatch.setattr(alternatives, "OnnxClassifier", load)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        entries = scene(settings=replace(SETTINGS, lengths=[8]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert loaded == [2, 2, 1, 1, 2, 2]  # to predict with both files, then to time both on one thread and on two
    for entry in entries:
        assert [point.threads for point in entry.speed] == [1, 1, 2, 2]
        assert entry.thread_counts == [2, 1]
        assert {point.threads for point in entry.usual_speed.values()} == {2}
        assert list(entry.speed_on(1)) == list(entry.usual_speed)


def test_what_cannot_be_loaded_again_is_null_and_the_others_go_on(scene, monkeypatch):
    """As where memory gives out."""
    loaded = []

    def load(path):
        loaded.append(path)
        if len(loaded) > 2:
            raise MemoryError("no room")
        return OnnxClassifier(path)

    monkeypatch.setattr(alternatives, "OnnxClassifier", load)
    fp32, int8, softmax = scene()
    for entry in (fp32, int8):
        assert entry.metrics
        assert {point.speedup for point in entry.speed} == {None}
        assert all("no room" in point.reason for point in entry.speed)
    assert all(point.speedup for point in softmax.speed)


def test_a_student_with_fewer_positions_is_timed_all_the_same(scene, make_bert):
    short = student_from_teacher(make_bert(max_position_embeddings=16), layer_map=[1], attention="softmax")[0].eval()
    for entry in scene(student=short, load=lambda: short):
        assert entry.speed[-1].length == 24
        assert entry.speed[-1].speedup > 0


def test_the_median_is_the_texts_own_rounded_up(make_examples):
    examples = make_examples(21)
    middle = sorted(examples.lengths)[10]
    assert 0 <= median_length({"validation": examples, "other": make_examples(3)}) - middle < 8


def test_without_lengths_there_is_quality_alone(scene):
    entries = scene(settings=replace(SETTINGS, lengths=[]))
    assert all(entry.speed == () and entry.metrics for entry in entries)


def test_without_softmax_stages_there_is_no_softmax_student(scene):
    assert [entry.name for entry in scene(load=None)] == [f"{ONNX} fp32", f"{ONNX} int8"]


def no_numbers(entry, reason):
    assert entry.metrics is entry.retention is entry.agreement is entry.megabytes is None, entry
    assert reason in entry.reason
    for point in entry.speed:
        numbers = (point.teacher_ms, point.student_ms, point.alternative_ms, point.speedup, point.low, point.high)
        assert set(numbers) == {None}, point
        assert set(vars(point.interval_over_student).values()) == {None, frozenset()}, point
        assert reason in point.reason


def fail(*arguments, **options):
    raise RuntimeError("no such operation\nsecond line")


def test_what_fails_is_null_with_a_reason_and_the_others_go_on(scene, monkeypatch):
    monkeypatch.setattr(alternatives, "export_fused", fail)
    fp32, int8, softmax = scene()
    no_numbers(fp32, "RuntimeError: no such operation")
    no_numbers(int8, "RuntimeError: no such operation")
    assert softmax.metrics
    assert all(point.speedup for point in softmax.speed)


def test_failing_int8_leaves_fp32(scene, monkeypatch):
    monkeypatch.setattr(alternatives, "quantize_fused", fail)
    fp32, int8, _ = scene()
    assert fp32.speed[0].speedup
    no_numbers(int8, "no such operation")


def test_a_softmax_student_that_cannot_be_loaded(scene):
    fp32, _, softmax = scene(load=lambda: fail())
    assert fp32.metrics
    no_numbers(softmax, "no such operation")


def test_a_file_that_computes_something_else_is_not_counted(scene, monkeypatch):
    def export_another(teacher, path):
        with torch.no_grad():
            teacher = type(teacher)(teacher.config).eval()
        return export_fused(teacher, path)

    monkeypatch.setattr(alternatives, "export_fused", export_another)
    fp32, int8, _ = scene()
    no_numbers(fp32, "does not compute the same: logits differ by")
    no_numbers(int8, "does not compute the same")


def test_a_missing_package_is_named(scene, monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxruntime" else object())
    no_numbers(scene(load=None)[0], "not installed: onnxruntime")


def test_a_teacher_that_reads_windows_has_no_file(scene, make_bert):
    teacher = reading_windows(make_bert(max_position_embeddings=8)).eval()
    fp32, _, softmax = scene(teacher=teacher)
    no_numbers(fp32, "in windows")
    assert softmax.metrics


def test_on_a_gpu_nothing_is_compared_with_the_cpu(tmp_path, scene):
    logits = {"validation": predict_logits(scene.teacher, scene.examples, device="cpu")}
    validation = {"validation": scene.examples}
    for found in alternatives._teacher_in_onnx(scene.teacher, validation, logits, "cuda:0", tmp_path):
        assert found.load is None
        assert found.facts["reason"].endswith("this comparison ran on cuda")


def test_speed_that_cannot_be_measured_leaves_the_quality(scene, monkeypatch):
    monkeypatch.setattr(alternative_speed, "_time_point", fail)
    for entry in scene():
        assert entry.metrics
        assert all(point.reason == "RuntimeError: no such operation second line" for point in entry.speed)


def test_no_file_stays_behind(scene, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert scene()[0].metrics
    monkeypatch.setattr(alternatives, "quantize_fused", fail)
    assert scene()[1].reason
    assert list(tmp_path.iterdir()) == []


def test_answers_that_are_not_finite_are_refused(scene):
    with torch.no_grad():
        scene.softmax.classifier.bias.fill_(np.nan)
    no_numbers(scene()[2], "not finite")
