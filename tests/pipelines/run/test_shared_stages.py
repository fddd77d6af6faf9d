"""What names a shared stage: students of other widths share what they do at full width, and nothing else."""

from dataclasses import replace

from distill.config.schema import StageConfig, StudentSettings
from pipelines.run.shared_stages import narrow_sizes, settings_of

DEPTH = StageConfig("depth", 1, 1e-4, {"logits": 1.0}, attention="softmax", width="full")
WIDTH = replace(DEPTH, name="width", width=None)
NARROW = StudentSettings(hidden_size=256, num_heads=[8, 4, 4])


def test_sizes_count_from_the_first_narrower_stage_on():
    assert narrow_sizes([DEPTH], NARROW) == {}
    assert narrow_sizes([DEPTH, WIDTH], NARROW) == {"hidden_size": 256, "num_heads": [8, 4, 4]}
    assert narrow_sizes([WIDTH], StudentSettings()) == {}


def test_a_stage_is_named_as_it_was_before_there_were_widths():
    assert "width" not in settings_of(WIDTH)
    assert settings_of(DEPTH)["width"] == "full"
    assert settings_of(WIDTH)["epochs"] == 1
