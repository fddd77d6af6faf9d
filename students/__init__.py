"""Student models: BERT with an efficient attention mechanism, registered with transformers' Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from .attention import ATTENTIONS
from .attention.base import SelfAttention
from .configuration import FEATURES, StudentConfig
from .from_teacher import CopyReport, calibrate_temperature, student_from_teacher
from .layer_map import LAYER_MAPS, resolve_layer_map
from .modeling import StudentForSequenceClassification, StudentModel

AutoConfig.register(StudentConfig.model_type, StudentConfig, exist_ok=True)
AutoModel.register(StudentConfig, StudentModel, exist_ok=True)
AutoModelForSequenceClassification.register(StudentConfig, StudentForSequenceClassification, exist_ok=True)

__all__ = [
    "ATTENTIONS",
    "FEATURES",
    "LAYER_MAPS",
    "CopyReport",
    "SelfAttention",
    "StudentConfig",
    "StudentForSequenceClassification",
    "StudentModel",
    "calibrate_temperature",
    "resolve_layer_map",
    "student_from_teacher",
]
