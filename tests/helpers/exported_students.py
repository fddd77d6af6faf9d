"""Untrained students to be exported, and the command that exports them."""

import sys

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from distill.benchmark.conditions import Models
from distill.config.schema import ComparisonConfig
from distill.data.splits import load_splits
from distill.data.tokenization import tokenize
from distill.evaluation.comparison import ComparisonSetup, compare_models
from distill.evaluation.predictions_file import write_predictions
from distill.evaluation.record import write_record
from distill.export.alternatives import measure_alternatives
from distill.tasks import get_task
from distill.utils.cli import run
from pipelines import export
from students import student_from_teacher

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "not", "plot"]
SIZE = {"vocab_size": len(WORDS), "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
SIZE |= {"max_position_embeddings": 32, "initializer_range": 0.5}
CONFIG = """
task: sst2
data: {{dir: {data}, max_length: 16}}
stages: [{{name: logits, epochs: 1, learning_rate: 1.0e-3, losses: {{logits: 1.0}}}}]
"""
QUICK = ["--lengths", "16", "--batch-sizes", "1", "--seconds-per-point", "0.02"]


def make_place(folder):
    """Fill a folder with a teacher, a run with its student, other students, and 40 texts of 3 to 14 tokens."""
    for split, count in (("train", 20), ("validation", 40)):
        lines = [" ".join(WORDS[5 + (i + j) % 5] for j in range(1 + i % 12)) + f"\t{i % 2}" for i in range(count)]
        path = folder / "data" / "sst2" / f"{split}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    torch.manual_seed(3)
    teacher = BertForSequenceClassification(BertConfig(num_hidden_layers=2, num_labels=2, **SIZE)).eval()
    student, _ = student_from_teacher(teacher, layer_map=[0], attention="performer", num_features=8)
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
    models = {"teacher": teacher, "run/student": student.eval(), "alone": student, "softmax": None}
    models["softmax"], _ = student_from_teacher(teacher, layer_map=[1], attention="softmax")
    models["exact"], _ = student_from_teacher(teacher, layer_map=[1], attention="abc", num_features=4, exact_up_to=8)
    for name, model in models.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    write_run(folder, teacher, student, tokenizer)
    return folder


def write_run(folder, teacher, student, tokenizer, run=None):
    """Leave what a finished run leaves, but for the training."""
    run = run or folder / "run"
    task, data = get_task("sst2"), str(folder / "data")
    splits = load_splits(task, source=data, seed=0, max_train_examples=None, held_out_fraction=0.05)
    validation = {name: tokenize(part, tokenizer, 16) for name, part in splits.validation.items()}
    setup = ComparisonSetup(task, validation, ComparisonConfig(lengths=[], resamples=50), "cpu")
    record, frame = compare_models(setup, Models(teacher, student), measure_alternatives)
    write_record(record, run / "record.json")
    write_predictions(frame, run / "predictions.parquet")
    (run / "config.yaml").write_text(CONFIG.format(data=data))


def call(monkeypatch, *arguments):
    """Run the script in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["export.py", *map(str, arguments), *QUICK])
    with pytest.raises(SystemExit) as ended:
        run(export.main)
    return ended.value.code


def outside(place, student="alone"):
    return ("--student", place / student, "--task", "sst2", "--data.dir", place / "data", "--data.max_length", "16")
