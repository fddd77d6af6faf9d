"""The keys of a configuration that take one of a few values: for the checks and for the help."""

from distill.config.schema import (
    AUGMENTATIONS,
    AUTO,
    BALANCED,
    FIRST_TOKEN,
    FULL,
    IMPORTANCE,
    LOSSES,
    PACKED,
    PRECISIONS,
    TARGETS,
    TENSORBOARD,
    TEXT_UNITS,
    TRAINABLE,
)
from distill.config.student_schema import FIT
from distill.tasks import LANGUAGE_MODELS, MAIN_METRICS, MULTI_LABEL_METRICS, REGRESSION_METRICS

ATTENTIONS = (
    *("abc", "aft", "bigbird", "compressive", "cosformer", "fastformer", "fnet", "hedgehog", "hybrid", "knn"),
    *("linear", "linformer", "lion", "longformer", "lsra", "luna", "luna_kernel", "memory_efficient", "nystrom"),
    *("performer", "reformer", "rfa", "scaling", "scatterbrain", "softmax", "sparse", "t2r", "taylor"),
    *("transformer_xl", "lstm"),
)
"""Names in `students.STUDENTS`, which is not imported here because it needs torch."""
TRACKERS = ("aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", TENSORBOARD, "trackio", "wandb")
"""Those of accelerate, which is not imported here because it needs torch."""
CHOICES: dict[str, tuple[str, ...]] = {
    "model": LANGUAGE_MODELS,
    "data.text_unit": TEXT_UNITS,
    "data.main_metric": tuple(dict.fromkeys((*MAIN_METRICS, *REGRESSION_METRICS, *MULTI_LABEL_METRICS))),
    "student.attention": (*ATTENTIONS, FIT),
    "student.layer_map": ("even", "first", "last", IMPORTANCE),
    "student.features": ("fixed", "redrawn", "learned"),
    "stages.losses": LOSSES,
    "stages.train": TRAINABLE,
    "stages.attention": ("softmax",),
    "stages.targets": TARGETS,
    "stages.texts": ("train", PACKED),
    "stages.inputs": ("student", "teacher"),
    "stages.last_layer": ("all", FIRST_TOKEN),
    "stages.width": (FULL,),
    "augmentation.kinds": AUGMENTATIONS,
    "training.mixed_precision": (AUTO, *PRECISIONS),
    "training.class_weights": (BALANCED,),
    "comparison.dtype": ("float32", "bfloat16", "float16"),
    "trackers": TRACKERS,
}
"""Dotted key to its values; attention also takes a list of them, layer_map and class_weights one of numbers."""
