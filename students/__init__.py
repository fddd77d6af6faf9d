"""Student models: BERT with an efficient attention mechanism, registered with transformers' Auto classes."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)

from .attention import ATTENTIONS
from .attention.base import SelfAttention
from .attention.mixture import Mechanisms
from .configuration import FEATURES, StudentConfig
from .exact_form import exact_form
from .from_teacher import CopyReport, calibrate_temperature, student_from_teacher
from .frozen_lstm import FrozenLSTMConfig, FrozenLSTMForSequenceClassification
from .language_models import StudentForCausalLM, StudentForMaskedLM
from .layer_map import LAYER_MAPS, resolve_layer_map
from .modeling import StudentForSequenceClassification, StudentModel, StudentPreTrainedModel
from .plain_bert import exact_length, plain_bert
from .t2r_folding import fold_features

AutoConfig.register(StudentConfig.model_type, StudentConfig, exist_ok=True)
AutoModel.register(StudentConfig, StudentModel, exist_ok=True)
AutoModelForSequenceClassification.register(StudentConfig, StudentForSequenceClassification, exist_ok=True)
AutoModelForCausalLM.register(StudentConfig, StudentForCausalLM, exist_ok=True)
AutoModelForMaskedLM.register(StudentConfig, StudentForMaskedLM, exist_ok=True)

AutoConfig.register(FrozenLSTMConfig.model_type, FrozenLSTMConfig, exist_ok=True)
AutoModelForSequenceClassification.register(FrozenLSTMConfig, FrozenLSTMForSequenceClassification, exist_ok=True)

STUDENTS = Mechanisms(ATTENTIONS | {"lstm": FrozenLSTMForSequenceClassification})
"""All that ``student.attention`` may name: the mechanisms, and the baseline with layers that stay as they are."""

__all__ = [
    "ATTENTIONS",
    "FEATURES",
    "LAYER_MAPS",
    "STUDENTS",
    "CopyReport",
    "FrozenLSTMConfig",
    "FrozenLSTMForSequenceClassification",
    "SelfAttention",
    "StudentConfig",
    "StudentForCausalLM",
    "StudentForMaskedLM",
    "StudentForSequenceClassification",
    "StudentModel",
    "StudentPreTrainedModel",
    "calibrate_temperature",
    "exact_form",
    "exact_length",
    "fold_features",
    "plain_bert",
    "resolve_layer_map",
    "student_from_teacher",
]
