"""Fine-tune a classifier without computing what it does not read: of the last layer all tokens but the first."""

from typing import Any

from transformers import PreTrainedModel

from distill.models.positions import positions_of
from students import student_from_teacher
from students.families import own_name, why_not


def reading_first_token(model: PreTrainedModel, longest: int = 0) -> PreTrainedModel:
    """Return a model of the same parameters, logits and gradients whose last layer computes the first token alone.

    It is the student of all layers with softmax attention, whose parameters are the model's own: who trains the one
    trains the other. The model itself is returned where it has no such student, or one with parameters beside, and
    where it has to read texts in windows.

    Args:
        model: a classifier.
        longest: tokens of the longest text that is read.
    """
    if why_not(model.config) or longest > positions_of(model):
        return model
    layers = list(range(model.config.num_hidden_layers))
    twin, _ = student_from_teacher(model, layer_map=layers, attention="softmax")
    own = dict(model.named_parameters(remove_duplicate=False))
    pairs = {name: own.get(own_name(model.config, name, layers)) for name, _ in twin.named_parameters()}
    if None in pairs.values() or set(pairs.values()) != set(own.values()):
        return model
    for name, parameter in pairs.items():
        module, _, tensor = name.rpartition(".")
        owner: Any = twin.get_submodule(module)
        setattr(owner, tensor, parameter)
    return twin
