"""Fine-tune a BERT without computing what its classifier does not read: of the last layer all tokens but the first."""

from typing import Any

from transformers import PreTrainedModel

from distill.models.positions import positions_of
from students import student_from_teacher


def reading_first_token(model: PreTrainedModel, longest: int = 0) -> PreTrainedModel:
    """Return a model of the same parameters and logits whose last layer computes the first token alone.

    It is the student of all layers with softmax attention, whose parameters are the model's own: who trains the one
    trains the other, with dropout in the same places. The model itself is returned where it is no BERT, as other
    families drop units elsewhere, and where it has to read texts in windows.

    Args:
        model: a classifier.
        longest: tokens of the longest text that is read.
    """
    if model.config.model_type != "bert" or longest > positions_of(model):
        return model
    twin, _ = student_from_teacher(model, layer_map=range(model.config.num_hidden_layers), attention="softmax")
    own = dict(model.named_parameters())
    for name, _ in list(twin.named_parameters()):
        module, _, tensor = name.rpartition(".")
        owner: Any = twin.get_submodule(module)
        setattr(owner, tensor, own[name])
    return twin
