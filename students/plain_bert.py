"""A student whose attention is exact is a BERT: given back as one, for whoever has transformers and not this code."""

import torch
from transformers import BertConfig, BertForSequenceClassification

from .attention import ATTENTIONS
from .configuration import BERT_FORM, StudentConfig
from .from_teacher import NOT_INHERITED, POSITIONS
from .layer_sizes import SIZES
from .modeling import StudentForSequenceClassification


def exact_length(config: StudentConfig) -> int:
    """Return up to how many tokens a student's attention is softmax over the whole text: 0 if it never is."""
    names = {config.attention_of_layer(layer) for layer in range(config.num_hidden_layers)}
    positions = config.max_position_embeddings - config.position_offset
    if all(ATTENTIONS[name].is_softmax for name in names):
        return positions
    return min(config.exact_up_to, positions)


def plain_bert(student: StudentForSequenceClassification) -> BertForSequenceClassification:
    """Return a BERT with the student's weights, for texts of at most :func:`exact_length` tokens.

    It has no more positions than that, so that it never reads a text in which the student would do something else.
    One that was made of a RoBERTa loses the positions before that of the first token, and reads what is padded on the
    right alike.

    Raises:
        ValueError: the student's attention is exact at no length, or its head or its embeddings are not BERT's.
    """
    if type(student) is not StudentForSequenceClassification:
        raise ValueError(f"{type(student).__name__} has a head that BERT does not have")
    positions = exact_length(student.config)
    if not positions:
        raise ValueError(f"{student.config.attention_name} attention is not BERT's at any length")
    if student.config.pooler_act != BERT_FORM["pooler_act"]:
        raise ValueError(f"the student's head has {student.config.pooler_act} where that of BERT has tanh")
    if student.config.embedding_size is not None:
        raise ValueError("the student has a linear layer between its embeddings and its layers, and BERT has none")
    sizes = {name: getattr(student.config, name) for name in SIZES}
    if student.config.head_size is not None or any(isinstance(size, list) for size in sizes.values()):
        raise ValueError(
            f"BERT has one size in all layers and heads that fill hidden_size {student.config.hidden_size}, but here "
            f"num_attention_heads is {sizes['num_attention_heads']}, head_size {student.config.head_size} and "
            f"intermediate_size {sizes['intermediate_size']}"
        )
    own = {*StudentConfig.__annotations__, *NOT_INHERITED} - {*SIZES}
    inherited = {key: value for key, value in student.config.to_dict().items() if key not in own}
    with torch.random.fork_rng(devices=[]):
        bert = BertForSequenceClassification(BertConfig(**inherited | {"max_position_embeddings": positions}))
    weights = student.state_dict()
    first = student.config.position_offset
    weights[POSITIONS] = weights[POSITIONS][first : first + positions]
    if any(weights.get(name, tensor.new_empty(0)).shape != tensor.shape for name, tensor in bert.state_dict().items()):
        raise ValueError("the student has embeddings or layers of another shape than BERT's")
    bert.load_state_dict({name: weights[name] for name in bert.state_dict()})
    bert.to(device=student.device)  # type: ignore[call-arg]  # transformers wraps it in an untyped descriptor
    return bert.eval()
