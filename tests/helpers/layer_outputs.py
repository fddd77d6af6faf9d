"""What stages match of a teacher of three layers, for tests of how that is stored and read."""

from dataclasses import replace

from distill.config.schema import StageConfig
from distill.data.batching import collate
from distill.objectives.capture_plan import plan_stage
from teachers.output_format import outputs_of

STAGE = StageConfig(
    "one", 1, 0.1, {"attention_output": 1.0, "hidden_states": 1.0, "attention_map": 1.0, "logits": 1.0}
)
PLAN = plan_stage(STAGE, [0, 2], 3)
FIRST = plan_stage(
    replace(STAGE, losses={"attention_output": 1.0, "hidden_states": 1.0}, last_layer="first_token"), [0, 2], 3
)
FORCED = plan_stage(
    replace(STAGE, losses={"attention_output": 1.0}, last_layer="first_token", inputs="teacher"), [0, 1, 2], 3
)


def flat(plan):
    return frozenset(output for layers in outputs_of(plan).values() for output in layers)


OUTPUTS = flat(PLAN)


def batch_of(examples, indices):
    return collate(examples, indices)[0]
