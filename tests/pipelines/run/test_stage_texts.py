"""Texts without labels for a teacher that reads other tokens than its student: row by row the same texts."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from helpers.families import tiny_classifier, tiny_tokenizer
from helpers.tiny_teachers import tiny_teacher

from distill.config.data_schema import DataConfig
from distill.config.schema import Config, StageConfig, StudentSettings, TeacherConfig
from distill.data.decoding import decode
from distill.data.splits import load_data, resolve_task
from distill.training.run_folder import RunFolder
from pipelines.run.context import make_context, make_setup
from pipelines.run.stage_texts import count_stage_texts, disk_of_stage_texts, read_stage_texts, unlabelled_entry

UNLABELLED = 30


@pytest.fixture
def opened(make_accelerator, tmp_path):
    """A run whose teacher is an XLNet, which pads on the left, and whose student is made of a RoBERTa."""
    data = DataConfig(dir="embedded", max_length=128, max_train_examples=60, unlabelled=str(tmp_path / "more.txt"))
    words = [text for row in load_data(resolve_task("sst2", data), data).train.texts for text in row]
    lines = [f"{first} and {second}" for first, second in pairwise(words)][:UNLABELLED]
    (tmp_path / "more.txt").write_text("\n".join(lines))
    teacher = tiny_teacher("xlnet", words, tmp_path / "teacher")
    tokenizer = tiny_tokenizer("roberta", words)
    start = tiny_classifier("roberta", vocab_size=len(tokenizer), max_position_embeddings=128)
    start.base_model.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    student = StudentSettings(num_layers=2, checkpoint=str(tmp_path / "start"))
    config = Config("sst2", data=data, teacher=TeacherConfig(checkpoint=str(teacher)), student=student)
    context = make_context(config, make_accelerator(), RunFolder(tmp_path / "run"))
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    return context, make_setup(context)


def in_words(examples, tokenizer):
    said = decode(examples, np.arange(len(examples)), tokenizer, 1)
    return ["".join(text.split()).casefold() for (text,) in said.texts]


def test_both_models_read_the_same_texts(opened):
    context, setup = opened
    needed = disk_of_stage_texts(context, setup)
    texts = read_stage_texts(context, setup)
    for read, examples in ((setup, texts.examples), (setup.for_teacher, texts.for_teacher)):
        count = count_stage_texts(context, read)
        assert (count.rows, round(count.tokens)) == (len(examples), len(examples.token_ids))
        assert len(examples) == len(setup.train) + UNLABELLED
    assert (texts.examples.padding_side, texts.for_teacher.padding_side) == ("right", "left")
    said = [in_words(texts.examples, setup.tokenizer), in_words(texts.for_teacher, setup.source.tokenizer)]
    assert said[0] == said[1]
    assert len(texts.examples.token_ids) != len(texts.for_teacher.token_ids), "each in its own tokens"
    kept = context.folder.path / "checkpoints" / "stage_tokens"
    files = [path for path in kept.glob("*/*") if path.suffix != ".json"]
    assert sum(path.stat().st_size for path in files) == pytest.approx(needed, rel=0.01)
    assert disk_of_stage_texts(context, setup) == 0, "they are there"


def test_the_record_counts_the_students_tokens(opened):
    context, setup = opened
    texts = read_stage_texts(context, setup)
    stage = StageConfig("logits", 1, 1e-4, {"logits": 1.0})
    entry = unlabelled_entry(context, replace(setup, stages=(stage,)))
    assert entry.tokens == len(texts.examples.token_ids) - len(setup.train.token_ids)
    assert entry.share_of_stage_texts == pytest.approx(UNLABELLED / (UNLABELLED + len(setup.train)))
