"""Which stages a short run has, and how many of their steps."""

from types import SimpleNamespace

from distill.config.schema import StageConfig
from distill.config.shape_search import StudentShape
from pipelines.run.trial import trial_stages

SHAPE = StudentShape(4, 192, 768, 6)
LONG = StageConfig("depth", 8, 1e-4, {"logits": 1.0}, attention="softmax", batch_size=10, keep_best_epoch=True)
SHORT = StageConfig("width", 0.3, 1e-4, {"logits": 1.0}, attention="softmax", batch_size=10)
OWN = StageConfig("layers", 8, 1e-4, {"hidden_states": 1.0}, targets="softmax_student", batch_size=10)
FIT = StageConfig("fit", 8, 1e-3, {"attention_output": 1.0}, targets="exact_form", batch_size=10)


def short(*stages):
    """Return the name and the steps of every stage of a short run on 1,000 texts."""
    setup = SimpleNamespace(stages=stages, train=range(1000))
    found = trial_stages(setup, SHAPE)
    assert not any(stage.keep_best_epoch for stage in found)
    return [(stage.name, round(stage.epochs * 100)) for stage in found]


def test_the_stages_before_the_mechanism_decide_depth_and_width():
    assert short(LONG, SHORT, OWN, FIT) == [("depth-4x192x768", 100), ("width-4x192x768", 30)]


def test_where_there_are_none_all_that_match_the_teacher_are_shortened():
    assert short(OWN, FIT) == [("layers-4x192x768", 100)]
