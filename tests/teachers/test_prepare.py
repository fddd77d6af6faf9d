"""What a baseline starts from has seen no label."""

import torch

from distill.config import SCRATCH, BaselineConfig, Config, TeacherConfig
from distill.tasks import get_task
from pipelines.phases import baseline_stage
from teachers.prepare import label_free_start


def test_from_scratch_is_the_untrained_bert_of_the_teachers_size(make_bert):
    teacher = make_bert()
    config = Config(
        "sst2", (), teacher=TeacherConfig("a finished teacher"), baseline=BaselineConfig(checkpoint=SCRATCH), seed=3
    )
    start, again = (label_free_start(config, get_task("sst2"), None, teacher) for _ in range(2))
    assert start.config.to_diff_dict() == teacher.config.to_diff_dict()
    for name, weights in start.state_dict().items():
        torch.testing.assert_close(weights, again.state_dict()[name], rtol=0, atol=0)
    query = "bert.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(start.state_dict()[query], teacher.state_dict()[query])
    assert baseline_stage(config).train == "all"  # nothing of it has learned anything yet, its word embeddings neither
