"""A student whose attention is exact is a BERT: given back as one, for whoever has transformers and not this code."""

import torch
from transformers import BertConfig, BertForSequenceClassification

from .attention import ATTENTIONS
from .configuration import StudentConfig
from .from_teacher import NOT_INHERITED, POSITIONS
from .modeling import StudentForSequenceClassification


def exact_length(config: StudentConfig) -> int:
    """Return up to how many tokens a student's attention is softmax over the whole text: 0 if it never is."""
    names = {config.attention_of_layer(layer) for layer in range(config.num_hidden_layers)}
    if all(ATTENTIONS[name].is_softmax for name in names):
        return config.max_position_embeddings
    return min(config.exact_up_to, config.max_position_embeddings)


def plain_bert(student: StudentForSequenceClassification) -> BertForSequenceClassification:
    """Return a BERT with the student's weights, for texts of at most :func:`exact_length` tokens.

    It has no more positions than that, so that it never reads a text in which the student would do something else.

    Raises:
        ValueError: the student's attention is exact at no length, or its head is not BERT's.
    """
    if type(student) is not StudentForSequenceClassification:
        raise ValueError(f"{type(student).__name__} has a head that BERT does not have")
    positions = exact_length(student.config)
    if not positions:
        raise ValueError(f"{student.config.attention} attention is not BERT's at any length")
    own = {*StudentConfig.__annotations__, *NOT_INHERITED}
    inherited = {key: value for key, value in student.config.to_dict().items() if key not in own}
    with torch.random.fork_rng(devices=[]):
        bert = BertForSequenceClassification(BertConfig(**inherited | {"max_position_embeddings": positions}))
    weights = student.state_dict()
    weights[POSITIONS] = weights[POSITIONS][:positions]
    if any(weights.get(name, tensor.new_empty(0)).shape != tensor.shape for name, tensor in bert.state_dict().items()):
        raise ValueError("the student has embeddings or layers of another shape than BERT's")
    bert.load_state_dict({name: weights[name] for name in bert.state_dict()})
    bert.to(device=student.device)  # type: ignore[call-arg]  # transformers wraps it in an untyped descriptor
    return bert.eval()
