"""A classifier of any family teaches a student that is made of another encoder and reads other tokens."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.data_folders import few_sentences, load
from helpers.families import tiny_classifier, tiny_tokenizer
from helpers.in_process import compare_again
from helpers.tiny_teachers import FAMILIES, teacher_with_code, tiny_teacher
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel

from distill.data.tokenization import train_tokenizer
from distill.evaluation.predictions_file import read_predictions

STAGES = """[
{name: depth, epochs: 1, learning_rate: 2.0e-4, attention: softmax, losses: {hidden_states: 1.0, logits: 1.0}},
{name: transfer, epochs: 1, learning_rate: 1.0e-3, targets: softmax_student, inputs: teacher, train: attention,
 losses: {attention_output: 1.0, attention_map: 1.0}},
{name: logits, epochs: 1, learning_rate: 1.0e-3, losses: {logits: 0.9, labels: 0.1}, keep_best_epoch: true}]"""
COPIES = ["--augmentation.copies", "2", "--augmentation.kinds", "[replace, cut]"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return few_sentences(tmp_path_factory.mktemp("data"), 150, 60)


@pytest.fixture(scope="module")
def texts(data) -> list[str]:
    return [text for row in load(data)[0].texts for text in row]


@pytest.fixture(scope="module")
def start(texts, tmp_path_factory) -> Path:
    """The encoder that students are made of."""
    folder = tmp_path_factory.mktemp("start") / "bert"
    tokenizer = train_tokenizer(texts, 250)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(tokenizer), **size)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def options(data):
    """Return a function that gives the options of a run from a teacher and from what the student is made of."""
    shared = ["--data.dir", str(data), "--student.num_layers", "2", "--stages", STAGES.replace("\n", " "), *COPIES]
    shared += ["--comparison.lengths", "[]"]
    return lambda teacher, start: ["--teacher.checkpoint", str(teacher), "--student.checkpoint", str(start), *shared]


@pytest.fixture(scope="module")
def distilled(tiny, texts, start, options, tmp_path_factory):
    """Return a function that distils from an encoder of a family, once."""
    done: dict[str, Path] = {}

    def run(family: str) -> Path:
        if family not in done:
            folder = tmp_path_factory.mktemp(family)
            teacher = tiny_teacher(family, texts, folder / "encoder", head=False, spread=0.1)
            finished = tiny.run(folder / "run", *options(teacher, start))
            assert finished.returncode == 0, finished.stderr
            done[family] = folder / "run"
        return done[family]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_run(family, distilled, start, data, monkeypatch, capsys):
    folder = distilled(family)
    record = json.loads((folder / "record.json").read_text())
    assert record["models"]["teacher"]["layers"] == 3
    assert record["models"]["student"]["layers"] == record["models"]["baseline"]["layers"] == 2
    assert [len(stage["fidelity"]) for stage in record["stages"]] == [0, 2, 0]
    assert record["models"]["teacher"]["flops"] is None
    assert family in record["models"]["teacher"]["flops_reason"]

    # Every model is saved with the tokenizer by which it reads, and predicts as transformers lets it.
    predicted = read_predictions(folder / "predictions.parquet")
    rows = [row[0] for row in load(data)[2]["validation"].texts[:8]]
    for role in ("teacher", "student", "baseline"):
        own_code = {"trust_remote_code": role != "teacher"}
        model = AutoModelForSequenceClassification.from_pretrained(folder / role, **own_code).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder / role)
        with torch.no_grad():
            read = [tokenizer(text, truncation=True, max_length=32, return_tensors="pt") for text in rows]
            alone = [model(**inputs).logits for inputs in read]
        expected = np.stack(predicted[f"{role}_logits"][:8])
        np.testing.assert_allclose(torch.cat(alone).numpy(), expected, rtol=1e-3, atol=1e-4)
    teacher, student, baseline, own = (
        len(AutoTokenizer.from_pretrained(place))
        for place in (folder / "teacher", folder / "student", folder / "baseline", start)
    )
    assert student == baseline == own != teacher

    # The maps end with their stage, and the card names what the student is made of.
    left = load_file(folder / "checkpoints" / "depth" / "student" / "model.safetensors")
    assert not any("maps" in name for name in left)
    assert "bert" in (folder / "student" / "README.md").read_text()
    words = "bert.embeddings.word_embeddings.weight"
    given = load_file(start / "model.safetensors")[words.removeprefix("bert.")]
    assert torch.equal(load_file(folder / "student" / "model.safetensors")[words], given)

    # Compared again from its folders alone, each model by its own tokenizer.
    run_folders = [f"--{role}={folder / role}" for role in ("teacher", "student", "baseline")]
    reads = ["--task", "sst2", "--data.dir", data, "--data.max_length", "32"]
    again = compare_again(monkeypatch, capsys, *run_folders, *reads)
    assert again["speed"][0]["speedup"] > 0
    assert again["throughput"]["teacher_tokens_per_second"] > 0
    for role in ("teacher", "student", "baseline"):
        assert again["models"][role]["metrics"] == pytest.approx(record["models"][role]["metrics"])
    assert again["kl_to_teacher"] == pytest.approx(record["kl_to_teacher"], rel=1e-3, abs=1e-6)


@pytest.mark.slow
def test_texts_without_labels_and_a_start_of_another_family(tiny, texts, options, tmp_path):
    """Both models read them, each in its own tokens; the student is made of an ELECTRA, the teacher is a RoBERTa."""
    folders = {}
    for kind in ("roberta", "electra"):
        tokenizer = tiny_tokenizer(kind, texts)
        encoder = tiny_classifier(kind, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id).base_model
        folders[kind] = tmp_path / kind
        encoder.save_pretrained(folders[kind])
        tokenizer.save_pretrained(folders[kind])
    lines = [f"{first} and {second}" for first, second in pairwise(texts)][:100]
    (tmp_path / "more.txt").write_text("\n".join(lines))
    more = ["--data.unlabelled", str(tmp_path / "more.txt"), "--teacher.margin_over_majority", "-1"]
    done = tiny.run(tmp_path / "run", *options(folders["roberta"], folders["electra"]), *more)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["unlabelled"]["texts"] == 100
    assert [len(stage["fidelity"]) for stage in record["stages"]] == [0, 2, 0]
    student = AutoTokenizer.from_pretrained(tmp_path / "run" / "student")
    assert student.get_vocab() == AutoTokenizer.from_pretrained(folders["electra"]).get_vocab()


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_equal_in_the_stage_of_the_maps(distilled, tiny, start, options, tmp_path, same_end):
    undisturbed = distilled("modernbert")
    arguments = options(undisturbed.parent / "encoder", start)
    killed, errors = tiny.kill_when(
        tiny.start(tmp_path / "run", *arguments), tmp_path / "run", "checkpoints/depth/step-*/manifest.json"
    )
    assert killed, errors
    done = tiny.run(tmp_path / "run", *arguments)
    assert done.returncode == 0, done.stderr
    same_end(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_a_teacher_with_code_of_its_own_that_shows_no_layers(tiny, texts, start, data, tmp_path):
    teacher = teacher_with_code(texts, tmp_path / "bag", tmp_path / "ran")
    logits = "[{name: logits, epochs: 1, learning_rate: 1.0e-3, losses: {logits: 1.0}}]"
    more = ["--student.num_layers", "2", "--stages", logits, "--comparison.lengths", "[]", "--baseline.epochs", "0"]
    models = ["--teacher.checkpoint", str(teacher), "--student.checkpoint", str(start)]
    arguments = [*models, "--data.dir", str(data), *more]
    refused = tiny.run(tmp_path / "run", *arguments)
    assert refused.returncode == 2
    assert "read that code, then give --teacher.trust_remote_code true" in refused.stderr
    assert not (tmp_path / "ran").exists()
    arguments += ["--teacher.trust_remote_code", "true"]
    killed, errors = tiny.kill_when(
        tiny.start(tmp_path / "run", *arguments), tmp_path / "run", "checkpoints/teacher/result.json"
    )
    assert killed, errors
    done = tiny.run(tmp_path / "run", *arguments)  # goes on from the teacher in its folder, and the code beside it
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "teacher" / "bag.py").exists()
    assert not (tmp_path / "run" / "student" / "bag.py").exists()
    assert "bag" not in (tmp_path / "run" / "student" / "config.json").read_text()
    assert "bag" not in (tmp_path / "run" / "student" / "tokenizer_config.json").read_text()
