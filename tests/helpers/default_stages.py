"""Stages as the default recipe has them."""

from distill.config.schema import StageConfig

LAYERS = {"attention_output": 1.0, "hidden_states": 1.0}
DEPTH = StageConfig("depth", 1, 1e-4, LAYERS, attention="softmax", last_layer="first_token")
DEPTH_LOGITS = StageConfig("depth_logits", 1, 1e-4, {"logits": 0.9, "labels": 0.1}, attention="softmax")
TRANSFER = StageConfig(
    "transfer",
    1,
    1e-4,
    {"attention_output": 1.0},
    targets="softmax_student",
    inputs="teacher",
    last_layer="first_token",
)
MATCH = StageConfig("layers", 1, 1e-4, LAYERS, targets="softmax_student", last_layer="first_token")
LOGITS = StageConfig("logits", 1, 1e-4, {"logits": 1.0})
