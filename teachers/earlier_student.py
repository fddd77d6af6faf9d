"""A student of the teacher's encoder, distilled on raw text, whose layers the student of a task starts with."""

from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel

from distill.config.schema import Config
from distill.config.student_start import earlier_student
from distill.models.own_memory import in_own_memory
from distill.utils.errors import UserError, loading_problem
from students import StudentForCausalLM, StudentForMaskedLM, StudentForSequenceClassification
from teachers.loading import Teacher, load_tokenizer

HAS_TO_FIT = {
    "attention": "student.attention",
    "num_hidden_layers": "student.num_layers",
    "num_features": "student.num_features",
    "attention_options": "student.attention_options",
    "features": "student.features",
    "softmax_layers": "student.softmax_layers",
    "exact_up_to": "student.exact_up_to",
    "hidden_size": "student.hidden_size",
    "intermediate_size": "student.intermediate_size",
    "num_attention_heads": "student.num_heads",
}
"""What of an earlier student has to be as it is configured now, and the key that says it."""
FREE = ("exact_up_to",)
"""What may differ: of the same weights."""
CLASSES = {each.__name__: each for each in (StudentForCausalLM, StudentForMaskedLM, StudentForSequenceClassification)}


def load_earlier_student(config: Config, teacher: Teacher) -> PreTrainedModel | None:
    """Load the student that ``student.checkpoint`` names; None where it names none.

    Raises:
        UserError: it cannot be read, or reads other tokens than the teacher.
    """
    folder = earlier_student(config)
    if folder is None:
        return None
    key = f"student.checkpoint {folder}"
    tokenizer = load_tokenizer(folder)
    if tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
        raise UserError(f"{key} reads other tokens than the teacher; give a student that was made of its encoder")
    try:
        found = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        name = next(iter(found.architectures or []), "")
        model: Any = CLASSES.get(name, StudentForMaskedLM).from_pretrained(folder, dtype=torch.float32)
    except Exception as error:  # a damaged file makes transformers fail in any way there is
        raise UserError(f"{key}: {loading_problem(error)}; distil it again") from error
    if found.causal:
        raise UserError(f"{key} is a causal language model, and a classifier sees whole texts; give a masked one")
    return in_own_memory(model).eval().requires_grad_(False)


@torch.no_grad()
def take_layers(student: PreTrainedModel, earlier: PreTrainedModel, checkpoint: str) -> None:
    """Give a student the embeddings and layers of an earlier one; its head stays.

    Raises:
        UserError: they do not have the same layers; the message names the key that differs.
    """
    for name, key in HAS_TO_FIT.items():
        own, other = (getattr(model.config, name) for model in (student, earlier))
        if own != other and name not in FREE:
            raise UserError(
                f"student.checkpoint {checkpoint} has {name} {other!r}, not {own!r}; give --{key} to match"
            )
    weights = {name: tensor for name, tensor in earlier.state_dict().items() if name.startswith("bert.")}
    own = student.state_dict()
    positions = "bert.embeddings.position_embeddings.weight"
    for name, tensor in own.items():
        found = weights.get(name)
        if found is None:
            if name.startswith(("bert.embeddings.", "bert.encoder.")):
                raise UserError(f"student.checkpoint {checkpoint} has no {name}; distil it again")
            continue  # the pooler and the head, which no language model has
        if name == positions and len(found) < len(tensor):
            tensor[: len(found)] = found  # those behind stay the teacher's
        else:
            tensor.copy_(found[: len(tensor)] if name == positions else found)
