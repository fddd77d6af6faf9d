"""Refuse what cannot be with task text, and its keys elsewhere, in one line that names the key."""

from collections.abc import Mapping
from typing import Any

from distill.config.attention_fit import mechanism_of_student
from distill.config.choices import CHOICES
from distill.config.require import require, require_choice
from distill.config.schema import EXACT_FORM, FIRST_TOKEN, IMPORTANCE, PACKED, SCRATCH, Config
from distill.config.student_schema import FIT
from distill.tasks import CAUSAL, TEXT
from distill.utils.errors import UserError

LABELS_ALONE = ("attention_map",)
"""Losses that compare the weights of a whole text, which a causal model does not have."""


def check_text(config: Config, attentions: Mapping[str, Any] | None) -> None:
    """Refuse what cannot work with task text, and what is for it alone with any other.

    Args:
        attentions: what a student may have; None skips the checks that need them.
    """
    if config.task != TEXT:
        for key, value in {"model": config.model, "data.text_unit": config.data.text_unit}.items():
            require(value is None, key, value, f"it goes only with task text (else --{key} null)")
        require(not config.data.passages, "data.passages", True, "it goes only with task text; leave it out")
        require(config.teacher.epochs != 0, "teacher.epochs", 0, "give more than 0, or null to have it chosen")
        return
    require_choice("model", str(config.model), CHOICES["model"])
    if config.data.text_unit is not None:
        require_choice("data.text_unit", config.data.text_unit, CHOICES["data.text_unit"])
    is_causal = config.model == CAUSAL
    way_out = "a causal model reads one text from left to right; give model masked, or leave it out"
    require(not (is_causal and config.data.passages), "data.passages", True, way_out)
    if attentions is not None:
        _check_attention(config, attentions, is_causal)
    _check_what_it_has_not(config)
    for stage in config.stages:
        key = f"stages.{stage.name}"
        without = [name for name in LABELS_ALONE if name in stage.losses]
        no_map = is_causal and without
        require(not no_map, f"{key}.losses", "".join(without[:1]), "a causal model has no map; use attention_output")
        require(stage.last_layer != FIRST_TOKEN, f"{key}.last_layer", FIRST_TOKEN, "task text reads all tokens")
        require(stage.texts != PACKED, f"{key}.texts", PACKED, "task text is one text already; use train")
        require(stage.targets != EXACT_FORM, f"{key}.targets", EXACT_FORM, "task text has no short texts; use teacher")
    if config.teacher.epochs == 0:
        require(config.baseline.epochs != 0, "baseline.epochs", 0, "it trains the student where teacher.epochs is 0")
        way_out = "without a teacher there is nothing to distil; write stages: auto, or let teacher.epochs be null"
        require(not config.stages, "stages", [stage.name for stage in config.stages], way_out)
        none = "with teacher.epochs 0 there is no teacher; leave it out"
        require(config.teacher.checkpoint is None, "teacher.checkpoint", config.teacher.checkpoint, none)


def _check_attention(config: Config, attentions: Mapping[str, Any], is_causal: bool) -> None:
    name = config.student.attention_name
    require(name != FIT, "student.attention", FIT, "task text fits no single blocks; name a mechanism, or a list")
    mechanism = mechanism_of_student(config.student, attentions)
    require(mechanism.trains_layers, "student.attention", name, "it classifies; task text needs a mechanism")
    reason = getattr(mechanism, "why_not_causal", None)
    if is_causal and reason is not None:
        able = ", ".join(other for other, each in attentions.items() if getattr(each, "why_not_causal", "") is None)
        raise UserError(
            f"student.attention is {name!r}: it {reason}, and model causal needs that; choose one of {able}"
        )


def _check_what_it_has_not(config: Config) -> None:
    student, key = config.student, "student"
    for name in ("hidden_size", "intermediate_size", "num_heads", "target_speedup", "checkpoint"):
        value = getattr(student, name)
        require(
            value is None, f"{key}.{name}", value, "task text makes its student of the teacher's layers; leave it out"
        )
    is_map = student.layer_map == IMPORTANCE
    way_out = "it asks what a teacher decides; give even, first, last or a list"
    require(not is_map, f"{key}.layer_map", IMPORTANCE, way_out)
    require(
        student.exact_up_to == 0, f"{key}.exact_up_to", student.exact_up_to, "task text has no short texts; give 0"
    )
    for name, usual in (("new_head", False), ("new_layers", 0), ("tries", 1)):
        value = getattr(config.teacher, name)
        require(value == usual, f"teacher.{name}", value, "it is for classifiers; leave it out")
    require(config.data.unlabelled is None, "data.unlabelled", config.data.unlabelled, "put the text into data.dir")
    baseline = config.baseline.checkpoint
    require(baseline in (None, SCRATCH), "baseline.checkpoint", baseline, "task text trains its baseline from scratch")
    copies, others = config.augmentation.copies, config.augmentation.tasks
    require(not copies, "augmentation.copies", copies, "task text has no copies; leave it out")
    require(not config.augmentation.choose, "augmentation.choose", True, "task text has no copies; leave it out")
    require(not others, "augmentation.tasks", others, "task text reads one text; leave it out")
    require(
        config.training.class_weights is None, "training.class_weights", config.training.class_weights, "no classes"
    )
