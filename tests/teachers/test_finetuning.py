"""What a baseline starts from has seen no label; what a teacher cannot read is refused."""

import pytest
import torch
from transformers import AutoTokenizer

from distill.config.data_schema import DataConfig
from distill.config.schema import SCRATCH, BaselineConfig, Config, StageConfig, TeacherConfig
from distill.tasks import get_task
from distill.utils.errors import UserError
from pipelines.run.baseline import baseline_stage
from pipelines.run.context import DistillationSetup
from teachers.finetuning import check_windows, label_free_start
from teachers.loading import Teacher


def test_from_scratch_is_the_untrained_bert_of_the_teachers_size(make_bert):
    teacher = make_bert()
    config = Config(
        "sst2", teacher=TeacherConfig("a finished teacher"), baseline=BaselineConfig(checkpoint=SCRATCH), seed=3
    )
    start, again = (label_free_start(config, get_task("sst2"), None, teacher) for _ in range(2))
    assert start.config.to_diff_dict() == teacher.config.to_diff_dict()
    for name, weights in start.state_dict().items():
        torch.testing.assert_close(weights, again.state_dict()[name], rtol=0, atol=0)
    query = "bert.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(start.state_dict()[query], teacher.state_dict()[query])
    lesson = DistillationSetup(Teacher(teacher, AutoTokenizer, is_trained=True), False, [0], [0], {}, [], ())
    assert (
        baseline_stage(config, lesson).train == "all"
    )  # nothing of it has learned anything yet, its word embeddings neither


@pytest.mark.parametrize(
    ("task", "loss", "words"),
    [
        ("sst2", "hidden_states", None),
        ("sst2", "attention_map", "stages.one: data.max_length is 600 but the teacher has 32 positions"),
        ("mrpc", "hidden_states", "pairs of texts cannot be read in windows; give no more than 32"),
    ],
)
def test_texts_longer_than_the_teachers_positions(make_bert, task, loss, words):
    stages = (StageConfig("one", 1, 0.1, {loss: 1.0}),)
    teacher = Teacher(make_bert(), AutoTokenizer, is_trained=True)
    long, short = (Config(task, stages=stages, data=DataConfig(max_length=length)) for length in (600, 32))
    check_windows(teacher, short, get_task(task))
    if words is None:
        check_windows(teacher, long, get_task(task))
        return
    with pytest.raises(UserError, match=words):
        check_windows(teacher, long, get_task(task))
