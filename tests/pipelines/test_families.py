"""A whole run with a teacher of every family: fine-tuned, distilled, compared and exported."""

import json

import pytest
import torch
import transformers
from helpers.data_folders import few_sentences, load
from helpers.families import tiny_classifier, tiny_tokenizer
from helpers.in_process import QUICK, call, compare_again
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from pipelines import export
from students.families import FAMILIES


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return few_sentences(tmp_path_factory.mktemp("data"), 150, 60)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_run(kind, data, tiny, tmp_path, monkeypatch, capsys):
    tokenizer = tiny_tokenizer(kind, [text for row in load(data)[0].texts for text in row], 400)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 40, "initializer_range": 0.05}
    pad = {"pad_token_id": tokenizer.pad_token_id}
    encoder = tiny_classifier(kind, vocab_size=len(tokenizer), **sizes | pad).base_model
    encoder.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    folder = tmp_path / "run"
    more = ["--student.layer_map", "importance", "--augmentation.copies", "1", "--augmentation.kinds", "[replace]"]
    more += ["--data.dir", str(data), "--comparison.lengths", "[]"]
    done = tiny.run(folder, "--teacher.checkpoint", str(tmp_path / "encoder"), *more)
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "record.json").read_text())
    assert record["models"]["teacher"]["flops"] > record["models"]["student"]["flops"] > 0
    fp32, int8 = record["alternatives"][:2]
    assert fp32["metrics"] == record["models"]["teacher"]["metrics"], fp32
    assert fp32["fused"]["Attention"] >= 1
    assert int8["metrics"], int8
    teacher = AutoModelForSequenceClassification.from_pretrained(folder / "teacher")
    assert type(teacher).__name__ == FAMILIES[kind].classifier
    student = AutoModelForSequenceClassification.from_pretrained(folder / "student").eval()
    assert student.config.model_type == "efficient_bert"
    tokenizer_config = json.loads((folder / "student" / "tokenizer_config.json").read_text())
    assert tokenizer_config["model_max_length"] == 40
    reads = ["--task", "sst2", "--data.dir", data, "--data.max_length", "32"]
    names = ["--teacher", folder / "teacher", "--student", folder / "student"]
    again = compare_again(monkeypatch, capsys, *names, *reads)
    assert again["models"]["student"]["metrics"] == pytest.approx(record["models"]["student"]["metrics"])
    assert again["speed"][0]["speedup"] > 0
    # As the last stage left it: where it lies beside the run's record, that and the report would be written again.
    student_folder = folder / "checkpoints" / "logits" / "student"
    output = tmp_path / "student.onnx"
    assert call(monkeypatch, export.main, "--student", student_folder, *reads, "--output", output, *QUICK) == 0
    assert torch.isfinite(student(torch.full((1, 40), 7)).logits).all()


def as_family(bert, kind):
    """Return a BERT classifier in the form of RoBERTa or ELECTRA: the same weights under their names."""
    sizes = {key: value for key, value in bert.config.to_dict().items() if key not in ("model_type", "architectures")}
    weights = {name.replace("bert.", f"{kind}.", 1): values for name, values in bert.state_dict().items()}
    for theirs, ours in (("classifier", "out_proj"), (f"{kind}.pooler.dense", "dense")):
        for part in ("weight", "bias"):
            weights[f"classifier.{ours}.{part}"] = weights.pop(f"{theirs}.{part}")
    if kind == "roberta":  # its first token stands behind the row of padding, which is token 0 here
        table = weights["roberta.embeddings.position_embeddings.weight"]
        weights["roberta.embeddings.position_embeddings.weight"] = torch.cat([torch.zeros_like(table[:1]), table])
        sizes["max_position_embeddings"] += 1
    else:
        sizes["embedding_size"] = sizes["hidden_size"]
    model = getattr(transformers, FAMILIES[kind].classifier)(AutoConfig.for_model(kind, **sizes))
    model.load_state_dict(weights)
    return model


@pytest.mark.real
@pytest.mark.slow
def test_a_real_encoder_distils_alike_in_every_form(tiny, shared, tmp_path):
    """RoBERTa's form computes what BERT's does; ELECTRA's has another head, and the same layers below it."""
    source = shared / "models" / "minilm-l6"
    torch.manual_seed(0)
    bert = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2)
    records = {}
    for kind, model in {
        "bert": bert,
        "roberta": as_family(bert, "roberta"),
        "electra": as_family(bert, "electra"),
    }.items():
        model.save_pretrained(tmp_path / kind)
        AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / kind)
        options = {
            "data.dir": shared / "data" / "glue",
            "data.max_train_examples": 64,
            "teacher.checkpoint": tmp_path / kind,
        }
        options |= {"baseline.epochs": 0, "student.num_layers": 2, "comparison.lengths": "[]"}
        done = tiny.run(
            tmp_path / f"run-{kind}", *(part for key, value in options.items() for part in (f"--{key}", str(value)))
        )
        assert done.returncode == 0, done.stderr
        records[kind] = json.loads((tmp_path / f"run-{kind}" / "record.json").read_text())
    for kind in ("roberta", "electra"):
        layers, expected = records[kind]["stages"][0], records["bert"]["stages"][0]
        for ours, theirs in zip(layers["fidelity"], expected["fidelity"], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-3)
    for model in ("teacher", "student"):
        ours, theirs = (records[kind]["models"][model] for kind in ("roberta", "bert"))
        assert ours["metrics"] == pytest.approx(theirs["metrics"], abs=2e-3)
        assert ours["flops"] == theirs["flops"]
